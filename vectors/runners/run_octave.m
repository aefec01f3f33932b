% Hold a cost of the notes' signature to EQ-COST: octave -q run_octave.m FUNCTION, in its folder.
% [value, gradient] = FUNCTION (theta, visible, hidden, weight_decay, rho, beta, data): a column of
% data is a sample; theta is W1, W2, b1, b2, each column by column. Octave 7 or newer.
cost = str2func (argv (){end});
folder = fileparts (fileparts (mfilename ("fullpath")));
vectors = jsondecode (fileread (fullfile (folder, "EQ-COST.json"))).vectors;
usages = [];
for i = 1:numel (vectors)
  if iscell (vectors), vector = vectors{i}; else, vector = vectors(i); end
  given = vector.inputs;
  network = given.parameters;
  if numfields (given) != 5 || network.tied || numel (network.sizes) != 3
    printf ("%s - not run\n", vector.id);
    continue
  end
  usage = 0; found = cell (1, 2); names = {"value", "gradient"};
  try
    data = reshape (given.x.data, given.x.shape(2), given.x.shape(1));
    [found{:}] = cost (network.theta(:), network.sizes(1), network.sizes(2), ...
                       given.weight_decay, given.rho, given.beta, data);
    for k = 1:2
      output = vector.outputs(strcmp ({vector.outputs.name}, names{k}));
      actual = found{k}(:);
      exact = str2double (cellstr (output.digits))(:);
      bound = postpad (output.bounds.float64(:), numel (exact), NaN);  % [] if every bound is null
      if numel (actual) != numel (exact), error ("%s has another shape", names{k}); end
      ratio = abs (actual - exact) ./ bound;
      ratio(isnan (bound) | actual == exact) = 0;
      ratio(isnan (actual) | isnan (ratio)) = Inf;
      usage = max ([usage; ratio]);
    end
  catch failure
    usage = Inf;
    fprintf (stderr, "%s: %s\n", vector.id, failure.message);
  end
  printf ("%s %.3g %s\n", vector.id, usage, {"failed", "passed"}{1 + (usage <= 1)});
  usages(end + 1) = usage;
end
if isempty (usages), exit (2); end
exit (double (max (usages) > 1));

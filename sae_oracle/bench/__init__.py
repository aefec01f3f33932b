"""`sae-oracle bench`: how much longer is a training step because of the penalty?

Part of the installed package, because the command must find it wherever it runs; it stands beside
`keras_impl` because nothing there needs it. `sizes`, `statistics`, `tables` and `plots` import no
Keras and are used by the command itself; `keras_steps`, `native_steps` and `measure` run in one
child process for each backend.
"""

// g++ -std=c++17 -DCOST='"cost.hpp"' run_cpp.cpp -o run && ./run EQ-COST.json holds to it double
// cost(theta, int visible, int hidden, weight_decay, rho, beta, data, gradient): double numbers, and
// std::vector<double>& theta, gradient (W1, W2, b1, b2 column by column), data (sample by sample).
#include <cmath>
#include <fstream>
#include <sstream>
#include COST
using Numbers = std::vector<double>;
Numbers after(const std::string& line, std::string key, size_t from = 0) {
    std::istringstream list(line.substr(line.find("\"" + key + "\":", from) + key.size() + 3));
    Numbers found;  // the list, or the number, that follows a key; null is infinite
    for (std::string text; text.find_first_of("]}") == text.npos && std::getline(list, text, ',');)
        found.push_back(text.find("null") != text.npos ? INFINITY
                        : std::strtod(&text[text.find_first_not_of("[\"")], nullptr));
    return found;
}
int main(int, char** argv) {
    std::ifstream file(argv[1]); double worst = -1;
    for (std::string line; std::getline(file, line);) if (line[2] == 'i') {  // a vector is a line
        auto id = line.substr(7, 16), in = line.substr(0, line.find(",\"exact_in"));
        Numbers size = after(in, "sizes"), theta = after(in, "theta"), x = after(in, "data"), g;
        bool more = in.find(',', in.find("weight_decay")) != in.npos;  // y, an epsilon, other units
        bool runs = size.size() == 3 && in.find("\"tied\":true") == in.npos && !more;
        double usage = 0, value = runs ? cost(theta, size[0], size[1], after(in, "weight_decay")[0],
                                              after(in, "rho")[0], after(in, "beta")[0], x, g) : 0;
        for (std::string name : {"gradient", "value"}) {
            size_t at = line.find("\"name\":\"" + name + "\"");
            Numbers exact = after(line, "digits", at), bound = after(line, "float64", at);
            if (name == "value") g = {value};
            if (g.size() != exact.size()) g.assign(exact.size(), NAN);
            for (size_t i = 0; i < g.size(); ++i)
                if (std::isnan(g[i])) usage = INFINITY;
                else if (g[i] != exact[i]) usage = std::fmax(usage, std::fabs(g[i] - exact[i]) / bound[i]);
        }
        std::printf(runs ? "%s %.3g %s\n" : "%s - not run\n", id.c_str(), usage,
                    usage <= 1 ? "passed" : "failed");
        worst = runs ? std::fmax(worst, usage) : worst;
    }
    return worst < 0 ? 2 : worst > 1;
}

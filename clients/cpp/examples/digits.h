#ifndef LATENTSERVE_EXAMPLES_DIGITS_H_
#define LATENTSERVE_EXAMPLES_DIGITS_H_

#include <filesystem>
#include <ostream>
#include <string>

// Samples eight digits into a PNG file, reconstructs one, and prints the error of an invalid request.
void Digits(const std::string& address, const std::string& model, const std::filesystem::path& folder,
            std::ostream& out);

#endif  // LATENTSERVE_EXAMPLES_DIGITS_H_

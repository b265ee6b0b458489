#ifndef LATENTSERVE_EXAMPLES_DIGITS_H_
#define LATENTSERVE_EXAMPLES_DIGITS_H_

#include <filesystem>
#include <ostream>
#include <string>

// Samples eight digits, writes them to a PNG file, reconstructs the picture of one, and shows what a bad call
// is answered with.
void Digits(const std::string& address, const std::string& model, const std::filesystem::path& folder,
            std::ostream& out);

#endif  // LATENTSERVE_EXAMPLES_DIGITS_H_

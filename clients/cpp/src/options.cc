#include "latentserve/options.h"

#include <fstream>
#include <iterator>

#include "latentserve/error.h"

namespace latentserve {
namespace {

std::string ReadPem(const char* what, const std::string& path) {
  if (path.empty()) return "";
  std::ifstream file(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file) throw Error::Invalid(what, path + " cannot be read; expected a PEM file");
  if (text.find("-----BEGIN ") == std::string::npos) {
    throw Error::Invalid(what, path + " contains no PEM; expected a PEM file");
  }
  return text;
}

}  // namespace

Tls Tls::FromFiles(const std::string& authority_file, const std::string& certificate_file,
                   const std::string& key_file) {
  if (certificate_file.empty() != key_file.empty()) {
    throw Error::Invalid("tls", "a client certificate requires its key and vice versa; one is missing");
  }
  return {ReadPem("tls.authority", authority_file), ReadPem("tls.certificate", certificate_file),
          ReadPem("tls.key", key_file)};
}

}  // namespace latentserve

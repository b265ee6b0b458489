#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "fake_server.h"

namespace latentserve_test {
namespace {

using latentserve::Tls;
using testing::HasSubstr;

// Certificate authority with signed certificates, as PEM files in a temporary folder.
class Authority {
 public:
  Authority() {
    std::string name = (std::filesystem::temp_directory_path() / "latentserve-XXXXXX").string();
    folder_ = mkdtemp(name.data());
    Run("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=authority -keyout "
        "ca.key "
        "-out ca.pem");
    std::ofstream(folder_ / "names") << "subjectAltName=IP:127.0.0.1\n";
    for (const std::string role : {"server", "client"}) {
      Run("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=" + role + " -keyout " + role +
          ".key -out " + role + ".csr");
      Run("x509 -req -days 1 -in " + role +
          ".csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile names -out " + role + ".pem");
    }
  }
  ~Authority() { std::filesystem::remove_all(folder_); }
  Authority(const Authority&) = delete;
  Authority& operator=(const Authority&) = delete;

  std::string Path(const std::string& name) const { return (folder_ / name).string(); }
  std::string Text(const std::string& name) const {
    std::ifstream file(folder_ / name);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }

 private:
  void Run(const std::string& arguments) {
    const std::string command =
        "cd '" + folder_.string() + "' && '" + OPENSSL + "' " + arguments + " 2>openssl.log";
    if (std::system(command.c_str()) != 0) throw std::runtime_error(command + ": " + Text("openssl.log"));
  }

  std::filesystem::path folder_;
};

// Records the token of each call.
void NoteToken(FakeServer* server, std::string* token) {
  server->on_sample = [token](auto& context, auto&, auto& reply) {
    const auto sent = context.client_metadata().find("authorization");
    if (sent != context.client_metadata().end()) token->assign(sent->second.data(), sent->second.size());
    SetPixel(1, reply.mutable_images());
    return grpc::Status::OK;
  };
}

TEST(Tls, SupportsCustomAuthorityClientCertificateAndToken) {
  const Authority authority;
  grpc::SslServerCredentialsOptions ssl(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  ssl.pem_root_certs = authority.Text("ca.pem");
  ssl.pem_key_cert_pairs = {{authority.Text("server.key"), authority.Text("server.pem")}};
  std::string token;
  FakeServer server;
  NoteToken(&server, &token);
  server.Start(grpc::SslServerCredentials(ssl));
  const auto sample = [&](const Tls& tls) {
    latentserve::Options options;
    options.tls = tls;
    options.token = "secret";
    options.retries = false;
    return ErrorOf([&] { server.Connect(options).Sample({}); });
  };
  const auto error = sample(
      Tls::FromFiles(authority.Path("ca.pem"), authority.Path("client.pem"), authority.Path("client.key")));
  EXPECT_FALSE(error) << error->what();
  EXPECT_EQ(token, "Bearer secret");

  const auto nameless = sample(Tls::FromFiles(authority.Path("ca.pem")));
  ASSERT_TRUE(nameless);
  EXPECT_EQ(nameless->code(), grpc::StatusCode::UNAVAILABLE);

  const Authority untrusted;
  const auto mistrusting = sample(
      Tls::FromFiles(untrusted.Path("ca.pem"), authority.Path("client.pem"), authority.Path("client.key")));
  ASSERT_TRUE(mistrusting);
  EXPECT_EQ(mistrusting->code(), grpc::StatusCode::UNAVAILABLE);
}

TEST(Tls, RefusesInvalidFiles) {
  EXPECT_THROW(Tls::FromFiles("/does/not/exist.pem"), latentserve::Error);
  EXPECT_THROW(Tls::FromFiles("", "/does/not/exist.pem"), latentserve::Error);
  const auto error = ErrorOf([] { Tls::FromFiles("/dev/null"); });
  ASSERT_TRUE(error);
  EXPECT_THAT(error->what(), HasSubstr("no PEM"));
}

TEST(Token, RequiresTls) {
  latentserve::Options options;
  options.token = "secret";
  const auto error = ErrorOf([&] { latentserve::Client("127.0.0.1:1", options); });
  ASSERT_TRUE(error);
  EXPECT_THAT(error->what(), HasSubstr("allow_insecure_token"));

  std::string token;
  FakeServer server;
  NoteToken(&server, &token);
  options.allow_insecure_token = true;
  server.Connect(options).Sample({});
  EXPECT_EQ(token, "Bearer secret");
}

TEST(Options, AreChecked) {
  const auto refused = [](auto change) {
    latentserve::Options options;
    change(options);
    return ErrorOf([&] { latentserve::Client("127.0.0.1:1", options); }).has_value();
  };
  EXPECT_FALSE(refused([](auto&) {}));
  EXPECT_TRUE(refused([](auto& options) { options.model = "mnist-vae:new"; }));
  EXPECT_TRUE(refused([](auto& options) { options.timeout = std::chrono::milliseconds(0); }));
  EXPECT_TRUE(refused([](auto& options) { options.max_message_bytes = 0; }));
  EXPECT_TRUE(refused([](auto& options) { options.allow_insecure_token = true; }));
  EXPECT_TRUE(refused([](auto& options) { options.tls = Tls{"", "certificate", ""}; }));
}

}  // namespace
}  // namespace latentserve_test

// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;

/** Certificate authority and the certificates that it signs, as PEM files made by keytool. */
final class Certificates {
  private static final String PASSWORD = "password";

  private final Path folder;
  private final String name;

  Certificates(Path folder, String name) throws IOException, InterruptedException {
    this.folder = folder;
    this.name = name;
    keytool("ca", "-ext", "bc:c=ca:true");
    write("ca");
  }

  /** Creates a certificate with an extension in the syntax of keytool. */
  void sign(String alias, String extension) throws IOException, InterruptedException {
    keytool(alias, "-ext", extension, "-signer", "ca");
    write(alias);
  }

  Path authority() {
    return certificate("ca");
  }

  Path certificate(String alias) {
    return folder.resolve(name + "-" + alias + ".pem");
  }

  Path key(String alias) {
    return folder.resolve(name + "-" + alias + ".key");
  }

  private Path store() {
    return folder.resolve(name + ".p12");
  }

  private void keytool(String alias, String... more) throws IOException, InterruptedException {
    List<String> command = new ArrayList<>();
    command.add(Path.of(System.getProperty("java.home"), "bin", "keytool").toString());
    command.addAll(List.of("-genkeypair", "-alias", alias, "-dname", "CN=" + name + " " + alias));
    command.addAll(List.of("-keyalg", "EC", "-groupname", "secp256r1", "-validity", "2"));
    command.addAll(List.of("-keystore", store().toString(), "-storepass", PASSWORD));
    command.addAll(List.of(more));
    Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
    String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    if (process.waitFor() != 0) {
      throw new IOException(command + ": " + output);
    }
  }

  private void write(String alias) throws IOException {
    try (InputStream in = Files.newInputStream(store())) {
      KeyStore keys = KeyStore.getInstance("PKCS12");
      keys.load(in, PASSWORD.toCharArray());
      StringBuilder chain = new StringBuilder();
      for (Certificate certificate : keys.getCertificateChain(alias)) {
        chain.append(pem("CERTIFICATE", certificate.getEncoded()));
      }
      Files.writeString(certificate(alias), chain);
      byte[] key = keys.getKey(alias, PASSWORD.toCharArray()).getEncoded();
      Files.writeString(key(alias), pem("PRIVATE KEY", key));
    } catch (GeneralSecurityException impossible) {
      throw new IOException(impossible);
    }
  }

  private static String pem(String kind, byte[] der) {
    String text = Base64.getMimeEncoder(64, new byte[] {'\n'}).encodeToString(der);
    return "-----BEGIN " + kind + "-----\n" + text + "\n-----END " + kind + "-----\n";
  }
}

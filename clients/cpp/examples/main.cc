// Command line of the example: digits [HOST:PORT [MODEL [FOLDER]]]; see digits.h.

#include <exception>
#include <iostream>

#include "digits.h"

int main(int count, char** words) {
  try {
    Digits(count > 1 ? words[1] : "127.0.0.1:50051", count > 2 ? words[2] : "mnist-vae",
           count > 3 ? words[3] : ".", std::cout);
    return 0;
  } catch (const std::exception& problem) {
    std::cerr << problem.what() << '\n';
    return 1;
  }
}

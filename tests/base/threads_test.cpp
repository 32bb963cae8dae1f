#include "pare/base/threads.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "pare/base/error.h"
#include "pare/base/interrupt.h"

namespace pare {
namespace {

class ThreadCount {  // sets the number of threads for one scope
 public:
  explicit ThreadCount(int count) : old_(threads()) { set_threads(count); }
  ~ThreadCount() { set_threads(old_); }

 private:
  int old_;
};

TEST(ParallelFor, CallsEveryIndexOnce) {
  for (const int count : {1, 2, 5}) {
    const ThreadCount scope(count);
    for (const int64_t n : {0, 1, 2, 1000}) {
      std::vector<std::atomic<int>> calls(static_cast<size_t>(n));
      parallel_for(n, [&](int64_t i) { ++calls.at(static_cast<size_t>(i)); });
      for (const auto& c : calls) EXPECT_EQ(c, 1);
    }
  }
}

TEST(ParallelFor, UsesTheThreadsThatWereSet) {
  const ThreadCount scope(3);
  EXPECT_EQ(threads(), 3);
  std::atomic<int> team{0};
  parallel_for(2, [&](int64_t) { team = omp_get_num_threads(); });
  EXPECT_EQ(team, 3);
  set_threads(0);
  EXPECT_GE(threads(), 1);
}

TEST(ParallelFor, ThrowsWhatACallThrewAfterAllHaveEnded) {
  for (const int count : {1, 4}) {
    const ThreadCount scope(count);
    std::atomic<int> running{0};
    try {
      parallel_for(500, [&](int64_t i) {
        ++running;
        if (i % 7 == 3) {
          --running;
          throw std::runtime_error("in call");
        }
        --running;
      });
      FAIL() << "nothing was thrown";
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "in call");
    }
    EXPECT_EQ(running, 0);
  }
}

TEST(ParallelFor, StopsSoonAfterAnException) {
  const ThreadCount scope(2);
  std::atomic<int64_t> calls{0};
  EXPECT_THROW(parallel_for(int64_t{1} << 20,
                            [&](int64_t) {
                              ++calls;
                              throw std::runtime_error("at once");
                            }),
               std::runtime_error);
  EXPECT_LE(calls, 2);  // each thread at most once
}

TEST(ParallelFor, NestedCallsStayOnTheirThread) {
  const ThreadCount scope(4);
  std::atomic<int> started{0}, strays{0}, calls{0};
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  parallel_for(8, [&](int64_t) {
    ++started;  // wait for a second thread, so that not all calls run on the first
    while (started < 2 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    const int outer = omp_get_thread_num();
    parallel_for(8, [&](int64_t) {
      ++calls;
      if (omp_get_thread_num() != outer) ++strays;
    });
  });
  EXPECT_EQ(calls, 64);
  EXPECT_EQ(strays, 0);
}

class Interrupts : public ::testing::Test {
 protected:
  void SetUp() override { catch_interrupts(); }
  void TearDown() override {
    std::signal(SIGINT, SIG_DFL);
    std::signal(SIGTERM, SIG_DFL);
    clear_interrupt();
  }
};

TEST_F(Interrupts, NothingHappensWithoutASignal) {
  EXPECT_FALSE(interrupted());
  EXPECT_NO_THROW(check_interrupt());
}

TEST_F(Interrupts, ASignalBecomesAnErrorAtTheNextCheck) {
  for (const auto& [number, text] : {std::pair{SIGINT, "interrupted"}, {SIGTERM, "stopped by SIGTERM"}}) {
    catch_interrupts();
    std::raise(number);
    EXPECT_TRUE(interrupted());
    try {
      check_interrupt();
      FAIL() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::interrupted);
      EXPECT_EQ(error.info().what, text);
    }
    EXPECT_EQ(std::signal(number, SIG_IGN), SIG_DFL) << "a second signal must end the process";
    clear_interrupt();
    EXPECT_FALSE(interrupted());
  }
}

}  // namespace
}  // namespace pare

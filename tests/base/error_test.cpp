#include "pare/base/error.h"

#include <gtest/gtest.h>

namespace pare {
namespace {

TEST(Error, SaysWhereWhatExpectedGotAndWhatToDo) {
  const Error error({.what = "the group size does not divide the columns",
                     .where = "model.layers.0.mlp.down_proj",
                     .expected = "a multiple of 128",
                     .got = "100",
                     .remedy = "use --group-size 50"});
  EXPECT_STREQ(error.what(),
               "model.layers.0.mlp.down_proj: the group size does not divide the columns; expected a multiple of 128, "
               "got 100; use --group-size 50");
  EXPECT_EQ(error.code(), ExitCode::bad_input);
}

TEST(Error, LeavesOutWhatItDoesNotKnow) {
  EXPECT_STREQ(Error({.what = "no"}).what(), "no");
  EXPECT_STREQ(Error({.what = "no", .where = "here", .got = "3"}).what(), "here: no; got 3");
  EXPECT_STREQ(Error({.what = "no", .remedy = "do this"}).what(), "no; do this");
}

}  // namespace
}  // namespace pare

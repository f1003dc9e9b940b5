//! `process`: arguments, environment, working directory, user.
//!
//! Owns what a program sees of itself. Never looks at capabilities or limits, which have modules.

use crate::lane::Bundle;

#[test]
fn arguments_and_exit_code() {
    let out = Bundle::new().args(&["sh", "-c", "echo \"$0-$1\"; exit 7", "a b", "c"]).run();
    assert_eq!((out.status, out.stdout.as_str()), (7, "a b-c\n"), "{out:?}");
}

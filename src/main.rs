//! The program.
fn main() {
    // placeholder
}

//! The `fairing` command: hands the command line to the library and leaves with its exit code.

fn main() {
    let argv: Vec<_> = std::env::args_os().collect();
    std::process::exit(stage0::main(&argv));
}

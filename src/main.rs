//! The `tyr` program: see [`tyr::cli`].

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    tyr::base::meter::keep_pages();
    tyr::cli::main()
}

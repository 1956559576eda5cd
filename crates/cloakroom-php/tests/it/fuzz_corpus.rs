//! The corpus of the fuzz targets, replayed without a fuzzer. [`check()`] is what the targets do with each input.

use cloakroom_php::Format;

// The very function that the fuzz targets run.
#[path = "../../../../fuzz/check.rs"]
mod check;

use check::check;

#[test]
fn the_corpus_replays() {
    for (format, name) in
        [(Format::Php, "php"), (Format::PhpBinary, "php_binary"), (Format::PhpSerialize, "php_serialize")]
    {
        let folder = format!("{}/../../fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
        let mut count = 0;
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder}: {error}")) {
            let bytes = std::fs::read(entry.expect("entry").path()).expect("readable");
            check(format, &bytes);
            count += 1;
        }
        assert!(count >= 10, "{folder} has {count}");
    }
}

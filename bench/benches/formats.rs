//! The formats alone, under criterion, so that a change can be compared with a saved baseline.
//!
//! `cargo bench --bench formats -- --save-baseline before`, then `-- --baseline before`. The comparison with others is
//! in the program `formats`.

use bytes::Bytes;
use cloakroom_bench::corpus::{Corpus, Kind};
use cloakroom_bench::shapes::{Dense, Framework, Login, Shape, Shopper, Texts};
use cloakroom_php::{Bag, Format, Value};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn formats(criterion: &mut Criterion) {
    let corpora = Corpus::all().expect("the corpus can be written");
    for corpus in &corpora {
        match corpus.kind {
            Kind::Login => one::<Login>(criterion, corpus),
            Kind::Shopper => one::<Shopper>(criterion, corpus),
            Kind::Framework => one::<Framework>(criterion, corpus),
            Kind::Dense => one::<Dense>(criterion, corpus),
            Kind::Texts => one::<Texts>(criterion, corpus),
        }
    }
}

fn one<S: Shape>(criterion: &mut Criterion, corpus: &Corpus) {
    let mut group = criterion.benchmark_group(corpus.name);
    for format in Format::ALL {
        let bytes = Bytes::copy_from_slice(corpus.bytes(format));
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        let parse = || Bag::parse(format, bytes.clone()).expect("PHP reads it, too");
        let bag = parse();
        let id = |name| BenchmarkId::new(name, format);
        group.bench_function(id("index"), |b| b.iter(parse));
        group.bench_function(id("get"), |b| b.iter(|| bag.get::<i64>("n")));
        let mut next = 0_i64;
        group.bench_function(id("splice"), |b| {
            b.iter(|| {
                let mut bag = bag.clone();
                next += 1;
                bag.set("n", &next).expect("an integer fits");
                bag
            });
        });
        group.bench_function(id("decode to structs"), |b| b.iter(|| S::from_bag(&bag)));
        let session = S::from_bag(&bag).expect("it has this shape");
        group.bench_function(id("encode"), |b| b.iter(|| session.to_bag(format)));
    }
    let bytes = &corpus.php_serialize;
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("decode to a value", |b| b.iter(|| Value::unserialize(bytes)));
    let value = Value::unserialize(bytes).expect("PHP reads it, too");
    group.bench_function("encode a value", |b| b.iter(|| value.serialize()));
    group.finish();
}

criterion_group!(benches, formats);
criterion_main!(benches);

//! What a request costs that never touches its session: counted as a difference to the same router without the layer.

use allocation_counter::measure;
use axum::Router;
use axum::routing::get;
use cloakroom_core::{Engine, Settings};
use cloakroom_store_memory::{MemoryConfig, MemoryStore};
use cloakroom_testkit::Faulty;
use tower::{Layer, Service};

use crate::support::{layer, request};

fn allocations<S>(service: &mut S, cookie: Option<&str>) -> u64
where
    S: Service<http::Request<axum::body::Body>, Response = http::Response<axum::body::Body>>,
    S::Error: std::fmt::Debug,
{
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut count = |request| {
        let info = measure(|| {
            runtime.block_on(async {
                std::future::poll_fn(|context| service.poll_ready(context)).await.unwrap();
                service.call(request).await.unwrap();
            });
        });
        info.count_total
    };
    count(request("/", cookie));
    count(request("/", cookie))
}

#[test]
fn an_untouched_session_costs_no_store_call_and_at_most_four_allocations() {
    let store = Faulty::new(MemoryStore::new(MemoryConfig::default()));
    let engine = Engine::new(store.clone(), Settings::php()).unwrap();
    let router = || Router::new().route("/", get(|| async { "hello" })).into_service();
    for cookie in [None, Some("a=1; PHPSESSID=0123456789abcdef0123456789abcdef; b=2")] {
        let bare = allocations(&mut router(), cookie);
        let with = allocations(&mut layer(&engine).layer(router()), cookie);
        assert!(with <= bare + 4, "{with} allocations, {bare} without the layer");
    }
    assert_eq!(store.calls().total(), 0);
}

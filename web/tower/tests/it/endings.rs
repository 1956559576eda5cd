//! How requests end: in order, with an error, with a panic, or not at all.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use cloakroom_core::{Engine, Session, Settings};
use cloakroom_store_memory::{MemoryConfig, MemoryStore};
use cloakroom_testkit::Faulty;
use cloakroom_testkit::faulty::{Fault, Op};
use tokio::sync::Notify;

use crate::support::{cookie, engine, layer, request, send, text};

fn drop_and_panic(s: cloakroom_core::Started) -> Result<String, &'static str> {
    let _held_while_unwinding = s;
    panic!("the handler's own panic")
}

async fn count(session: Session) -> cloakroom_core::Result<String> {
    let mut s = session.start().await?;
    let n = s.get::<i64>("n")?.unwrap_or(0) + 1;
    s.set("n", &n)?;
    Ok(n.to_string())
}

#[tokio::test]
async fn what_start_left_open_is_written_whatever_the_status() {
    let engine = engine();
    let app = Router::new()
        .route("/", get(count))
        .route("/fail", get(|session: Session| async { (StatusCode::IM_A_TEAPOT, count(session).await) }))
        .layer(layer(&engine));
    let response = send(&app, "/fail", None).await;
    assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
    let cookie = cookie(&response);
    assert_eq!(text(send(&app, "/", Some(&cookie)).await).await, "2");
}

#[tokio::test]
async fn a_panic_and_a_lost_client_release_the_lock() {
    let engine = engine();
    let app = Router::new()
        .route("/", get(count))
        .route(
            "/panic",
            get(|session: Session| async move {
                let mut s = session.start().await.unwrap();
                s.set("n", &100).unwrap();
                let s: Result<String, &str> = drop_and_panic(s);
                s.unwrap()
            }),
        )
        .route(
            "/hang",
            get(|session: Session| async move {
                let mut s = session.start().await.unwrap();
                s.set("n", &100).unwrap();
                std::future::pending::<()>().await;
                ""
            }),
        )
        .layer(layer(&engine));
    let cookie = cookie(&send(&app, "/", None).await);

    let (panicking, held) = (app.clone(), cookie.clone());
    let panicked = tokio::spawn(async move { drop(send(&panicking, "/panic", Some(&held)).await) }).await;
    assert!(panicked.unwrap_err().is_panic());
    assert_eq!(text(send(&app, "/", Some(&cookie)).await).await, "2");

    let lost = tokio::time::timeout(Duration::from_millis(50), send(&app, "/hang", Some(&cookie))).await;
    assert!(lost.is_err());
    assert_eq!(text(send(&app, "/", Some(&cookie)).await).await, "3");
}

#[tokio::test]
async fn a_response_whose_session_was_not_written_is_replaced() {
    let store = Faulty::new(MemoryStore::new(MemoryConfig::default()));
    let engine = Engine::new(store.clone(), Settings::php()).unwrap();
    let app = Router::new().route("/", get(count)).layer(layer(&engine));
    let cookie = cookie(&send(&app, "/", None).await);
    store.reset();
    store.fail_at(Op::Commit, 1, Fault::Unavailable);
    let response = send(&app, "/", Some(&cookie)).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "1");
    assert!(response.headers().get("set-cookie").is_none());
    assert_eq!(text(response).await, "Service Unavailable\n");
    assert_eq!(text(send(&app, "/", Some(&cookie)).await).await, "2");
}

#[tokio::test]
async fn the_head_waits_for_the_write() {
    let engine = engine();
    let gate = Arc::new(Notify::new());
    let inner = Arc::clone(&gate);
    let app = Router::new()
        .route("/", get(count))
        .route(
            "/slow",
            get(|session: Session| async move {
                let s = session.start().await.unwrap();
                inner.notified().await;
                drop(s);
                "slow"
            }),
        )
        .layer(layer(&engine));
    let cookie = cookie(&send(&app, "/", None).await);
    let (slow, jar) = (app.clone(), cookie.clone());
    let slow = tokio::spawn(async move { send(&slow, "/slow", Some(&jar)).await.status() });
    tokio::task::yield_now().await;
    let (other, jar) = (app.clone(), cookie.clone());
    let other = tokio::spawn(async move { text(send(&other, "/", Some(&jar)).await).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!other.is_finished(), "the lock is held");
    gate.notify_one();
    assert_eq!(slow.await.unwrap(), StatusCode::OK);
    assert_eq!(other.await.unwrap(), "2");
}

#[tokio::test]
async fn without_the_layer_the_error_says_so() {
    let app = Router::new().route("/", get(count));
    let response = tower::ServiceExt::oneshot(app, request("/", None)).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
}

//! Layers within layers.

use axum::Router;
use axum::http::request::Parts;
use axum::routing::get;
use cloakroom_core::{Engine, Session, Settings};
use cloakroom_store_memory::{MemoryConfig, MemoryStore};

use crate::support::{cookie, engine, layer, send, text};

async fn count(session: Session) -> cloakroom_core::Result<String> {
    session
        .update(|s| {
            let n = s.get::<i64>("n")?.unwrap_or(0) + 1;
            s.set("n", &n)?;
            Ok(n.to_string())
        })
        .await
}

#[tokio::test]
async fn an_inner_layer_of_the_same_name_uses_the_same_session() {
    let engine = engine();
    let app = Router::new().route("/", get(count)).layer(layer(&engine)).layer(layer(&engine));
    let cookie = cookie(&send(&app, "/", None).await);
    assert_eq!(text(send(&app, "/", Some(&cookie)).await).await, "2");
}

#[tokio::test]
async fn an_inner_layer_of_another_name_is_another_session() {
    let engine = engine();
    let mut settings = Settings::php();
    settings.name = "ADMIN".into();
    let admin = Engine::new(MemoryStore::new(MemoryConfig::default()), settings).unwrap();
    let both = get(|parts: Parts| async move {
        let shop = Session::of_request(&parts.extensions, "PHPSESSID").unwrap();
        let admin = Session::of_request(&parts.extensions, "ADMIN").unwrap();
        assert!(Session::of_request(&parts.extensions, "OTHER").is_none());
        count(shop).await?;
        count(admin).await
    });
    let app = Router::new().route("/", both).layer(layer(&admin)).layer(layer(&engine));
    let response = send(&app, "/", None).await;
    let cookies: Vec<_> = response.headers().get_all("set-cookie").iter().collect();
    assert_eq!(cookies.len(), 2, "{cookies:?}");
    assert!(cookies.iter().any(|line| line.as_bytes().starts_with(b"ADMIN=")));
    assert!(cookies.iter().any(|line| line.as_bytes().starts_with(b"PHPSESSID=")));
}

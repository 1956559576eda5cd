//! The PHP facade without PHP: what the scenarios cannot say, because PHP has no words for it.

use cloakroom::php::{Request, Severity, StartOption, Status};
use cloakroom::{Cloakroom, ErrorKind, Settings};
use http::HeaderMap;

async fn room() -> Cloakroom {
    Cloakroom::builder().url("memory:").settings(Settings::php_defaults()).build().await.unwrap()
}

fn request(room: &Cloakroom) -> Request {
    Request::new(room, http::Request::new(()).into_parts().0)
}

#[tokio::test]
async fn own_verbs_and_phps_functions_share_one_session() {
    let room = room().await;
    let mut php = request(&room);
    assert!(php.session_start(&[]).await);
    assert!(php.set("n", b"i:1;"));
    assert_eq!(php.session().await.unwrap().read().await.unwrap_err().kind(), ErrorKind::Misuse);
    assert!(php.session_write_close().await);
    php.session().await.unwrap().update(|s| s.set("n", &2)).await.unwrap();
    assert!(php.session_start(&[]).await);
    assert_eq!(php.get("n").unwrap().unwrap(), b"i:2;");
    let mut headers = HeaderMap::new();
    php.finish(&mut headers).await.unwrap();
    assert_eq!(headers.get_all("set-cookie").iter().count(), 1);
}

#[tokio::test]
async fn what_php_would_lose_is_refused_when_it_is_set() {
    let room = room().await;
    let mut php = request(&room);
    assert!(php.session_start(&[]).await);
    assert!(!php.set("a|b", b"i:1;"));
    assert!(!php.set(5, b"i:1;"));
    assert!(php.set("kept", b"i:1;"));
    assert_eq!(php.take_warnings().len(), 2);
    assert_eq!(php.session_encode().unwrap(), b"kept|i:1;");
}

#[tokio::test]
async fn a_started_session_refuses_changes_of_settings() {
    let room = room().await;
    let mut php = request(&room);
    assert_eq!(php.ini_set("session.name", "SID").as_deref(), Some("PHPSESSID"));
    assert!(php.session_start(&[("no_such".into(), StartOption::Int(1))]).await);
    assert_eq!(php.session_status(), Status::Active);
    assert_eq!(php.ini_set("session.name", "X"), None);
    assert_eq!(php.set_session_name("X"), None);
    assert_eq!(php.session_name(), "SID");
    assert!(php.session_start(&[]).await);
    let warnings = php.take_warnings();
    assert_eq!(warnings.iter().filter(|warning| warning.severity == Severity::Notice).count(), 1, "{warnings:?}");
}

/// Without cookies PHP starts sessions after the head as well; the script's end has to write them and to say so.
#[tokio::test]
async fn a_session_started_after_the_head_is_written_at_the_end() {
    let mut settings = Settings::php_defaults();
    settings.use_cookies = false;
    settings.cache_limiter = String::new();
    let room = Cloakroom::builder().url("memory:").settings(settings).build().await.unwrap();
    for turn in 0..2 {
        let mut php = request(&room);
        php.set_session_id(b"abc").unwrap();
        assert!(php.session_start(&[]).await, "{:?}", php.take_warnings());
        assert_eq!(php.get("n").unwrap().is_some(), turn == 1);
        assert!(php.session_write_close().await);
        php.send_head(&mut HeaderMap::new()).await.unwrap();
        assert!(php.session_start(&[]).await, "{:?}", php.take_warnings());
        assert!(php.set("n", b"i:1;"));
        php.finish(&mut HeaderMap::new()).await.unwrap();
    }
}

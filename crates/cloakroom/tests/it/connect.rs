//! URLs, php.ini, and what is said when they are wrong.

use cloakroom::{Cloakroom, ErrorKind, Settings};

#[tokio::test]
async fn a_url_or_a_php_ini_opens_a_store() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display();
    Cloakroom::connect("memory:").await.unwrap();
    Cloakroom::connect(&format!("files://{path}")).await.unwrap();
    let settings = Settings::from_ini(&format!("session.save_path = \"1;{path}\"\n")).unwrap();
    Cloakroom::builder().settings(settings).build().await.unwrap();
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    for (url, part) in [
        ("", "looks like"),
        ("/var/lib/php/sessions", "looks like"),
        ("redis+nonsense://localhost", "redis+nonsense"),
        ("gopher://x", "gopher"),
        ("memory:?max_byte=1", "max_byte"),
        ("files://relative", ""),
        ("files:///no/such/directory", "/no/such/directory"),
    ] {
        let error = Cloakroom::connect(url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{url}: {error:?}");
        assert!(error.to_string().contains(part), "{url}: {error}");
    }
    // Passwords in odd places.
    for url in ["hunter2@localhost:6379", "app:hunter2@h/db", "user:x?hunter2@h", "hunter2@localhost"] {
        let builder = Cloakroom::builder().url(url);
        let shown = format!("{builder:?}");
        let error = builder.build().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{url}");
        assert!(!format!("{shown} {error:?} {error}").contains("hunter2"), "{url}: {shown} {error:?}");
    }
    let mut settings = Settings::php();
    settings.save_handler = "redisk".into();
    let error = Cloakroom::builder().settings(settings).build().await.unwrap_err();
    assert!(error.to_string().contains("redis"), "{error}");
    let mut settings = Settings::php();
    settings.name = "a b".into();
    let error = Cloakroom::builder().url("memory:").settings(settings).build().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}

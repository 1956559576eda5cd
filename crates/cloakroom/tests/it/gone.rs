//! Logout wins also over a request that holds the session's lock: PHP's own clean-up, and a `destroy` at the end of its
//! waiting limit, unlink a session file without it.

use cloakroom::{Cloakroom, ErrorKind};
use http::HeaderMap;
use http::header::{COOKIE, SET_COOKIE};

#[tokio::test]
async fn a_new_id_does_not_bring_a_destroyed_session_back() {
    for delete_old in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let room = Cloakroom::connect(&format!("files://{}", directory.path().display())).await.unwrap();
        let session = room.begin(&http::Request::new(()).into_parts().0);
        session.update(|s| s.set("user", &7)).await.unwrap();
        let id = session.id().await.unwrap();

        let head = http::Request::builder().header(COOKIE, format!("PHPSESSID={}", id.expose_str()));
        let session = room.begin(&head.body(()).unwrap().into_parts().0);
        let mut s = session.start().await.unwrap();
        std::fs::remove_file(directory.path().join(format!("sess_{}", id.expose_str()))).unwrap();
        assert_eq!(s.regenerate_id(delete_old).await.unwrap_err().kind(), ErrorKind::Gone);
        drop(s);
        let mut headers = HeaderMap::new();
        let error = room.finish(session.clone(), &mut headers).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Gone);
        room.finish(session, &mut headers).await.unwrap();
        assert!(headers.get(SET_COOKIE).is_none(), "{headers:?}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}

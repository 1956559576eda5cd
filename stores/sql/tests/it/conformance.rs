//! The store keeps every promise of the suite, in each layout and lock mode, on both servers.

/// The suite on one server and layout, where that server is not left out.
macro_rules! on {
    ($module:ident, $kind:ident, $options:literal; $($group:ident),*) => {
        mod $module {
            use crate::servers::{Kind, skipped};
            use crate::util::Fresh;

            cloakroom_testkit::store_conformance!(
                {
                    if skipped(Kind::$kind) {
                        return;
                    }
                    Fresh::new(Kind::$kind, $options).await
                };
                $($group),*
            );
        }
    };
}

on!(postgres_native, Postgres, "max_payload=2000000"; aside, columns, limit, list, lost, second, sweep, talks, versions);
on!(mariadb_native, MariaDb, "max_payload=2000000"; aside, columns, limit, list, lost, second, sweep, talks, versions);
on!(postgres_symfony_transactional, Postgres, "layout=symfony&migrate=yes&lock=transactional&max_payload=2000000";
    aside, limit, list, lost, second, sweep, talks);
on!(mariadb_symfony_transactional, MariaDb, "layout=symfony&migrate=yes&lock=transactional";
    aside, limit, list, lost, second, sweep, talks);
on!(postgres_symfony_advisory, Postgres, "layout=symfony&migrate=yes&lock=advisory&max_payload=2000000";
    aside, limit, list, lost, second, sweep, talks);
on!(mariadb_symfony_advisory, MariaDb, "layout=symfony&migrate=yes&lock=advisory";
    aside, limit, list, lost, second, sweep, talks);
on!(postgres_symfony_without_locks, Postgres, "layout=symfony&migrate=yes&lock=none&max_payload=2000000";
    aside, limit, list, sweep, talks);
on!(mariadb_symfony_without_locks, MariaDb, "layout=symfony&migrate=yes&lock=none"; aside, limit, list, sweep, talks);

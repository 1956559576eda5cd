//! The end of the program: what it waits for, and for how long.

use std::time::Duration;

use cloakroom_core::{Engine, Settings};
use cloakroom_testkit::faulty::{Fault, Faulty, Op};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Visitor, memory};

/// With a store that takes so long for it each time.
fn engine(op: Op, time: Duration) -> Engine {
    let mut settings = Settings::php();
    (settings.gc_probability, settings.gc_divisor) = (1, 1);
    let store = Faulty::new(memory());
    store.fail_always(op, Fault::Stall(time));
    Engine::new(store, settings).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_the_store_and_not_for_ever() {
    for (settles_in, waited) in [(0, 0), (1, 1), (3600, 2)] {
        let engine = engine(Op::Settle, Duration::from_secs(settles_in));
        let begun = Instant::now();
        engine.shutdown().await;
        assert_eq!(begun.elapsed().as_secs(), waited, "{settles_in}");
    }
}

/// A round of sweeping may take hours.
#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_no_sweep() {
    let engine = engine(Op::Sweep, Duration::from_secs(3600));
    Visitor::with_session(&engine).await;
    // It has begun by now.
    sleep(Duration::from_secs(5)).await;
    timeout(Duration::from_secs(1), engine.shutdown()).await.unwrap();
}

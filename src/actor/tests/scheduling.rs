//! Who runs when: slices, turns, places, queues, deadlines. Order and counts are asserted, never wall-clock times.

use std::rc::Rc;

use smol::{LocalExecutor, channel, future};

use super::*;
use crate::error::Kind;

/// A guest that spins until its fuel is gone.
fn spinner() -> Vec<u8> {
    guest("(loop $again (br $again)) (i32.const 1)")
}

/// A guest that makes one host call with its payload.
fn caller() -> Vec<u8> {
    guest(
        "(call $request (i32.const 0) (i32.const 4096))
        (drop (call $call (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
            (i32.const 4096) (local.get $len)))
        (call $answer (i32.const 4096)) (call $response (i32.const 4096) (call $answer_len)) (i32.const 1)",
    )
}

/// Outcalls that answer when the test says so, and a sender to say it with.
fn on_demand() -> (Arc<Table>, channel::Sender<Vec<u8>>) {
    let (sender, receiver) = channel::unbounded::<Vec<u8>>();
    let table = Table::new(move |_| {
        let receiver = receiver.clone();
        Box::pin(async move { receiver.recv().await.map_err(|_| "the test is over".to_string()) })
    });
    (table, sender)
}

/// Lets every other task that is ready run some rounds.
async fn settle() {
    for _ in 0..100 {
        future::yield_now().await;
    }
}

/// Waits until `condition` holds. A test that waits for ever is ended by the minute its invocations have.
async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        future::yield_now().await;
    }
}

/// Counts how often a future is polled: how often an invocation had its turn on the thread.
fn counted<T>(future: impl Future<Output = T>, polls: Arc<AtomicUsize>) -> impl Future<Output = T> {
    let mut future = Box::pin(future);
    future::poll_fn(move |context| {
        polls.fetch_add(1, Ordering::Relaxed);
        future.as_mut().poll(context)
    })
}

/// Runs a test as one task among those it spawns, all on this thread, first ready, first run.
fn on_one_thread<F: Future<Output = ()> + 'static>(test: impl FnOnce(Rc<LocalExecutor<'static>>) -> F) {
    let executor = Rc::new(LocalExecutor::new());
    let test = executor.spawn(test(executor.clone()));
    smol::block_on(executor.run(test));
}

#[test]
fn a_spinning_guest_lets_others_run_after_each_slice() {
    let engine = engine(|settings| {
        settings.slice_fuel = 1_000;
        settings.fuel = 1_000_000;
    });
    let spinner = task::block_on(load(&engine, spinner())).unwrap();
    // One thread, so that the rounds of the neighbour count the slices of the spinner.
    on_one_thread(|executor| async move {
        let spinning = executor.spawn(spinner.invoke("Op", Vec::new(), context()));
        let mut rounds = 0;
        while !spinning.is_finished() {
            future::yield_now().await;
            rounds += 1;
        }
        assert_eq!(spinning.await.unwrap_err().kind(), Kind::Limit);
        // 1000 slices of 1000 units, all but the first after waiting for a permit: the neighbour ran after each.
        assert!((999..=2100).contains(&rounds), "{rounds} rounds");
    });
}

#[test]
fn many_spinning_guests_hold_a_neighbour_up_for_a_slice_each_round_only() {
    const SPINNERS: usize = 8;
    let engine = engine(|settings| {
        settings.slice_fuel = 1_000;
        settings.fuel = 100_000;
    });
    let (spinner, echo) =
        task::block_on(async { (load(&engine, spinner()).await.unwrap(), load(&engine, echo()).await.unwrap()) });
    on_one_thread(|executor| async move {
        let polls = Arc::new(AtomicUsize::new(0));
        let spinning: Vec<_> = (0..SPINNERS)
            .map(|_| executor.spawn(counted(spinner.invoke("Op", Vec::new(), context()), polls.clone())))
            .collect();
        until(|| spinner.counts().running == SPINNERS as u32).await;
        settle().await;
        for _ in 0..50 {
            let before = polls.load(Ordering::Relaxed);
            // A new task comes in behind everything that is ready, as a socket or a timer would.
            let answer = executor.spawn(echo.invoke("Op", b"hello".to_vec(), context())).await;
            assert_eq!(answer, Ok(b"hello".to_vec()));
            let waited = polls.load(Ordering::Relaxed) - before;
            // Being called in and running a slice are a poll each; without permits all eight would go first.
            assert!(waited <= 4, "a neighbour waited for {waited} polls of spinning guests");
        }
        assert_eq!(spinner.counts().running, SPINNERS as u32, "the spinners ended before the neighbour was through");
        for spinning in spinning {
            assert_eq!(spinning.await.unwrap_err().kind(), Kind::Limit);
        }
    });
}

#[test]
fn spinning_guests_take_turns() {
    let engine = engine(|settings| {
        settings.slice_fuel = 1_000;
        settings.fuel = 50_000;
    });
    let spinner = task::block_on(load(&engine, spinner())).unwrap();
    on_one_thread(|executor| async move {
        let polls: Vec<_> = (0..4).map(|_| Arc::new(AtomicUsize::new(0))).collect();
        let spinning: Vec<_> = polls
            .iter()
            .map(|polls| executor.spawn(counted(spinner.invoke("Op", Vec::new(), context()), polls.clone())))
            .collect();
        while spinning.iter().any(|spinning| !spinning.is_finished()) {
            future::yield_now().await;
            let polls: Vec<_> = polls.iter().map(|polls| polls.load(Ordering::Relaxed)).collect();
            let (least, most) = (polls.iter().min().unwrap(), polls.iter().max().unwrap());
            assert!(most - least <= 4, "one guest got ahead of another: {polls:?}");
        }
    });
}

#[test]
fn chatting_with_the_host_does_not_stretch_a_slice() {
    let engine = engine(|settings| {
        settings.slice_fuel = 10_000;
        settings.fuel = 1_000_000;
        // Thousands of calls take an emulated processor a while; the fuel is what is to end them.
        settings.deadline = Duration::from_secs(60);
    });
    let zeros = "(i32.const 0) ".repeat(8);
    let chatty = guest(&format!("(loop $again (drop (call $call {zeros})) (br $again)) (i32.const 1)"));
    let table = Table::fixed(Ok(Vec::new()));
    let chatty = task::block_on(load_with(&engine, chatty, table)).unwrap();
    let polls = Arc::new(AtomicUsize::new(0));
    let outcome = smol::block_on(counted(chatty.invoke("Op", Vec::new(), context()), polls.clone()));
    assert_eq!(outcome.unwrap_err().kind(), Kind::Limit);
    // 100 slices, although every host call was answered at once.
    assert!(polls.load(Ordering::Relaxed) >= 99, "{polls:?} polls");
}

#[test]
fn a_call_between_actors_waits_for_a_turn_first() {
    let engine = engine(|_| ());
    let echo = task::block_on(load(&engine, echo())).unwrap();
    let polls = Arc::new(AtomicUsize::new(0));
    let nested = Context { depth: 1, ..context() };
    smol::block_on(counted(echo.invoke("Op", Vec::new(), nested), polls.clone())).unwrap();
    assert_eq!(polls.load(Ordering::Relaxed), 2);
    polls.store(0, Ordering::Relaxed);
    smol::block_on(counted(echo.invoke("Op", Vec::new(), context()), polls.clone())).unwrap();
    assert_eq!(polls.load(Ordering::Relaxed), 1);
}

#[test]
fn the_deadline_also_ends_a_guest_that_waits() {
    let engine = engine(|settings| settings.deadline = Duration::from_millis(20));
    let (table, _keep) = on_demand();
    let outcome = task::block_on(async {
        let actor = load_with(&engine, caller(), table).await.unwrap();
        let outcome = invoke(&actor, b"").await;
        assert_eq!((actor.counts().running, actor.counts().queued), (0, 0));
        outcome
    });
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    assert_eq!(error.text(), "actor test did not answer within 20 ms (WASMCLOUD_ACTOR_DEADLINE_MS)");
}

#[test]
fn invocations_beyond_the_places_queue_in_order_and_beyond_the_queue_are_refused() {
    let engine = engine(|settings| {
        settings.max_concurrent = 1;
        settings.queue = 2;
    });
    let (table, answers) = on_demand();
    task::block_on(async {
        let actor = load_with(&engine, caller(), table.clone()).await.unwrap();
        let mut tasks = Vec::new();
        for number in 0..3u8 {
            tasks.push(task::spawn(actor.invoke("Op", vec![number], context())));
            until(|| actor.counts().running + actor.counts().queued == u32::from(number) + 1).await;
        }
        assert_eq!((actor.counts().running, actor.counts().queued), (1, 2));
        let refused = invoke(&actor, b"").await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Busy);
        assert_eq!(refused.text(), "actor test is busy: 2 invocations wait already (WASMCLOUD_ACTOR_QUEUE)");
        for _ in 0..3 {
            answers.send(Vec::new()).await.unwrap();
        }
        for task in tasks {
            assert_eq!(task.await, Ok(Vec::new()));
        }
        let order: Vec<_> = table.calls.lock().unwrap().iter().map(|call| call.payload.clone()).collect();
        assert_eq!(order, [[0], [1], [2]]);
        let counts = actor.counts();
        assert_eq!((counts.calls, counts.errors, counts.running, counts.queued), (4, 1, 0, 0));
    });
}

#[test]
fn places_of_the_host_are_shared_by_all_actors_and_each_depth_has_its_own() {
    let engine = engine(|settings| {
        settings.max_running = 1;
        settings.host_queue = 1;
    });
    let (table, answers) = on_demand();
    task::block_on(async {
        let busy = load_with(&engine, caller(), table.clone()).await.unwrap();
        let echo = load(&engine, echo()).await.unwrap();
        let first = task::spawn(busy.invoke("Op", Vec::new(), context()));
        until(|| table.calls.lock().unwrap().len() == 1).await;
        let second = task::spawn(echo.invoke("Op", b"waits".to_vec(), context()));
        until(|| echo.counts().queued == 1).await;
        let refused = invoke(&echo, b"").await.unwrap_err();
        assert_eq!(refused.text(), "the host is busy: 1 invocations wait already (WASMCLOUD_QUEUE)");
        // A call from the guest that holds the only place is served all the same.
        let nested = echo.invoke("Op", b"nested".to_vec(), Context { depth: 1, ..context() }).await;
        assert_eq!(nested, Ok(b"nested".to_vec()));
        answers.send(Vec::new()).await.unwrap();
        assert_eq!(first.await, Ok(Vec::new()));
        assert_eq!(second.await, Ok(b"waits".to_vec()));
    });
}

#[test]
fn nesting_has_a_limit_and_host_calls_carry_depth_and_deadline() {
    let engine = engine(|settings| settings.nesting = 3);
    let table = Table::fixed(Ok(Vec::new()));
    task::block_on(async {
        let actor = load_with(&engine, caller(), table.clone()).await.unwrap();
        let deadline = Instant::now() + Duration::from_millis(900);
        actor.invoke("Op", Vec::new(), Context { deadline, depth: 2 }).await.unwrap();
        let call = table.calls.lock().unwrap()[0].clone();
        assert_eq!((call.depth, call.deadline), (2, deadline));
        let refused = actor.invoke("Op", Vec::new(), Context { deadline, depth: 3 }).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Limit);
        assert_eq!(
            refused.text(),
            "actor test was not called: actors called each other 3 deep, which is the limit (WASMCLOUD_ACTOR_NESTING)"
        );
    });
}

#[test]
fn dropped_invocations_leave_no_place_taken_and_nothing_counted() {
    let engine = engine(|settings| {
        settings.max_concurrent = 1;
        settings.max_running = 1;
    });
    let (table, answers) = on_demand();
    task::block_on(async {
        let actor = load_with(&engine, caller(), table.clone()).await.unwrap();
        for _ in 0..20 {
            let waiting_for_answer = task::spawn(actor.invoke("Op", Vec::new(), context()));
            until(|| actor.counts().running == 1).await;
            let waiting_for_place = task::spawn(actor.invoke("Op", Vec::new(), context()));
            until(|| actor.counts().queued == 1).await;
            waiting_for_place.cancel().await;
            waiting_for_answer.cancel().await;
            assert_eq!((actor.counts().running, actor.counts().queued), (0, 0));
        }
        answers.send(b"still here".to_vec()).await.unwrap();
        assert!(invoke(&actor, b"").await.is_ok());
    });
}

#[test]
fn more_places_let_waiting_invocations_in() {
    let engine = engine(|settings| settings.max_concurrent = 1);
    let (table, answers) = on_demand();
    task::block_on(async {
        let actor = load_with(&engine, caller(), table.clone()).await.unwrap();
        let tasks: Vec<_> = (0..3).map(|_| task::spawn(actor.invoke("Op", Vec::new(), context()))).collect();
        until(|| (actor.counts().running, actor.counts().queued) == (1, 2)).await;
        actor.set_max_concurrent(3);
        until(|| (actor.counts().running, actor.counts().queued) == (3, 0)).await;
        for _ in 0..3 {
            answers.send(Vec::new()).await.unwrap();
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
}

//! The way of answers from a writer's thread to those who wait, a group at a time.
//!
//! Room      `store`.
//! Holds     an answer that was handed over arrives, also when the task that carries it, or the
//!           runtime of that task, has ended.
//!
//! To wake a sleeping runtime from another thread costs more than all the rest of an answer. So
//! the writer wakes it once for a group, and a task inside gives the answers out.

use std::sync::{Mutex, Once, PoisonError};
use std::task::Waker;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

/// Answers one caller.
pub(crate) fn reply<E>(answer: oneshot::Sender<E>, end: E) {
    // The caller may have hung up; what was done stands all the same.
    let _ = answer.send(end);
}

/// The writer's side and the callers' side.
pub(crate) fn channel<G: Group>() -> (Answers<G>, Answering<G>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Answers(sender), Answering { receiver: Mutex::new(Some(receiver)), started: Once::new() })
}

/// The answers of one group. They go out when it is dropped.
// INVARIANT: wherever a group ends, in the task, in the channel or with it, it is dropped.
pub(crate) trait Group: Send + 'static {
    /// How many are answered.
    fn len(&self) -> usize;
}

/// Callers, and what each is told.
#[derive(Debug)]
pub(crate) struct Ends<E>(pub(crate) Vec<(oneshot::Sender<E>, E)>);

impl<E: Send + 'static> Group for Ends<E> {
    fn len(&self) -> usize {
        self.0.len()
    }
}

impl<E> Drop for Ends<E> {
    fn drop(&mut self) {
        for (answer, end) in self.0.drain(..) {
            reply(answer, end);
        }
    }
}

/// Tasks that look for themselves how it ended.
#[derive(Debug)]
pub(crate) struct Wakers(pub(crate) Vec<Waker>);

impl Group for Wakers {
    fn len(&self) -> usize {
        self.0.len()
    }
}

impl Drop for Wakers {
    fn drop(&mut self) {
        self.0.drain(..).for_each(Waker::wake);
    }
}

/// Hands answers over; owned by the writer's thread.
#[derive(Debug)]
pub(crate) struct Answers<G>(mpsc::UnboundedSender<G>);

impl<G: Group> Answers<G> {
    /// Answers everybody in a group.
    pub(crate) fn give(&self, group: G) {
        if group.len() > 1 {
            // Where nobody carries it, it comes back and is dropped here.
            let _ = self.0.send(group);
        }
    }
}

/// Carries answers; owned by the handle of the writer.
#[derive(Debug)]
pub(crate) struct Answering<G> {
    receiver: Mutex<Option<mpsc::UnboundedReceiver<G>>>,
    started: Once,
}

impl<G: Group> Answering<G> {
    /// Starts the task that carries answers, in the runtime of the first caller. It ends with the
    /// writer's thread. Where there is no runtime the writer gives the answers out itself.
    pub(crate) fn start(&self) {
        self.started.call_once(|| {
            let receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let (Some(mut groups), Ok(runtime)) = (receiver, Handle::try_current()) {
                runtime.spawn(async move { while groups.recv().await.is_some() {} });
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(count: u64) -> (Ends<u64>, Vec<oneshot::Receiver<u64>>) {
        let (ends, answered) = (0..count)
            .map(|n| {
                let (answer, answered) = oneshot::channel();
                ((answer, n), answered)
            })
            .unzip();
        (Ends(ends), answered)
    }

    fn numbers(mut answered: Vec<oneshot::Receiver<u64>>) -> Vec<u64> {
        answered.iter_mut().map(|answered| answered.try_recv().unwrap()).collect()
    }

    #[tokio::test]
    async fn a_group_is_answered_in_a_task_of_the_runtime() {
        let (answers, answering) = channel();
        answering.start();
        let (ends, answered) = waiting(3);
        std::thread::spawn(move || answers.give(ends)).join().unwrap();
        for (n, answered) in (0..).zip(answered) {
            assert_eq!(answered.await.unwrap(), n);
        }
    }

    #[test]
    fn a_group_is_answered_at_once_where_there_is_no_runtime() {
        let (answers, answering) = channel();
        answering.start();
        let (ends, answered) = waiting(3);
        answers.give(ends);
        assert_eq!(numbers(answered), [0, 1, 2]);
    }

    #[test]
    fn answers_arrive_although_the_runtime_of_their_task_has_ended() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (answers, answering) = channel();
        runtime.block_on(async { answering.start() });
        let (before, answered_before) = waiting(3);
        answers.give(before);
        drop(runtime);
        assert_eq!(numbers(answered_before), [0, 1, 2]);
        let (after, answered_after) = waiting(2);
        answers.give(after);
        assert_eq!(numbers(answered_after), [0, 1]);
    }
}

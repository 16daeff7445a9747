//! The worker owns an agent's clients. Orders are done one after the other; each that has an answer gives one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::crew::{Failure, Hands, Produced};
use crate::fleet::message::{ToCoordinator, WRITTEN_CHUNK};
use crate::stamp::Payloads;
use crate::verify::Written;

/// What clients shall do.
#[derive(Debug)]
pub(super) enum Order {
    StartProducers(Payloads),
    StartConsumers,
    Aim(Arc<Vec<i64>>),
    EndProducers(Duration),
    EndConsumers(Option<Arc<Vec<i64>>>, Duration),
    Verify(Vec<Written>),
}

/// Works until nobody orders or listens any more.
pub(super) async fn work(
    mut hands: Hands,
    mut orders: mpsc::Receiver<Order>,
    says: mpsc::Sender<ToCoordinator>,
) {
    loop {
        let answers = tokio::select! {
            order = orders.recv() => match order {
                Some(order) => obey(&mut hands, order).await,
                None => break,
            },
            failure = hands.failed() => {
                failure.map(|reason| vec![ToCoordinator::ClientFailed { reason }])
            }
        };
        let (answers, is_over) = match answers {
            Ok(answers) => (answers, false),
            Err(failure) => (vec![ToCoordinator::Failed { reason: failure.to_string() }], true),
        };
        for answer in answers {
            if says.send(answer).await.is_err() {
                return;
            }
        }
        if is_over {
            break;
        }
    }
    hands.abandon();
    drop(orders);
    // What is said is said; the desk ends when the coordinator wants it to.
    says.closed().await;
}

async fn obey(hands: &mut Hands, order: Order) -> Result<Vec<ToCoordinator>, Failure> {
    let answer = match order {
        Order::StartProducers(payloads) => {
            hands.start_producers(payloads).await?;
            ToCoordinator::Started
        }
        Order::StartConsumers => {
            hands.start_consumers();
            return Ok(Vec::new());
        }
        Order::Aim(ends) => {
            hands.aim(ends);
            return Ok(Vec::new());
        }
        Order::EndProducers(limit) => {
            let Produced { written, abandoned, unsettled, failure } =
                hands.end_producers(limit).await?;
            let chunks = written.chunks(WRITTEN_CHUNK);
            let ended = ToCoordinator::ProducersEnded { abandoned, unsettled, failure };
            return Ok(chunks
                .map(|chunk| ToCoordinator::Written(chunk.to_vec()))
                .chain([ended])
                .collect());
        }
        Order::EndConsumers(ends, limit) => {
            let failure = hands.end_consumers(ends, limit).await?;
            ToCoordinator::ConsumersEnded { failure }
        }
        Order::Verify(written) => {
            let (is_complete, findings) = hands.verify(&written);
            ToCoordinator::Verified { is_complete, findings }
        }
    };
    Ok(vec![answer])
}

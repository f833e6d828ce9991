//! The model's thread: takes requests of all clients, scores prompts in common passes, and extends all texts
//! by one token at a time.
//!
//! Each turn is one scoring pass and one token of every text, so that neither kind of work waits for the
//! other's end. Prompts that arrive during a round of scoring wait for the next round. Work whose client has
//! disconnected is dropped.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use super::score::{Scored, plan, score};
use crate::base::{Error, Result};
use crate::data::tokenizer::Tokenizer;
use crate::generate::{Entry, Sequence, Settings, Step, advance};
use crate::model::Model;

/// Texts that are written at once.
const TOGETHER: usize = 16;

/// The work for one prompt.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    /// Place in its request.
    pub index: usize,
    /// At least one token.
    pub prompt: Vec<u32>,
    /// What is requested.
    pub settings: Settings,
    /// Whether the prompt's log-probabilities are requested.
    pub scored: bool,
}

/// The outcome of a prompt; [`Event::is_last`] ends it.
#[derive(Debug)]
pub(crate) enum Event {
    /// Entries of the prompt's tokens from the second on.
    Prompt(Vec<Entry>),
    /// A written token.
    Step(Step),
    /// Nothing is to be written.
    Nothing,
    /// The prompt leaves no room for a token that was requested.
    NoRoom,
    /// It failed.
    Failed(Error),
}

impl Event {
    /// Whether nothing follows.
    pub(crate) fn is_last(&self) -> bool {
        match self {
            Event::Prompt(_) => false,
            Event::Step(step) => step.finish.is_some(),
            Event::Nothing | Event::NoRoom | Event::Failed(_) => true,
        }
    }
}

/// Where the events of a request's prompts go.
pub(crate) type Events = UnboundedSender<(usize, Event)>;

/// The prompts of one request.
pub(crate) struct CompletionJob {
    pub works: Vec<Work>,
    pub events: Events,
}

/// The thread.
pub(crate) struct Worker {
    pub model: Arc<Model>,
    pub tokenizer: Arc<Tokenizer>,
    pub jobs: Receiver<CompletionJob>,
    /// Cancels the thread after its current turn.
    pub cut: Arc<AtomicBool>,
}

impl Worker {
    /// Works until all clients' senders are dropped, or until it is cancelled.
    pub(crate) fn run(self) {
        let mut scheduler = Scheduler::new(&self.model, &self.tokenizer);
        while !self.cut.load(Ordering::Relaxed) && self.fetch(&mut scheduler) {
            scheduler.turn();
        }
    }

    /// Accepts waiting jobs; with nothing to do, waits for a while. False when no job can come any more.
    fn fetch(&self, scheduler: &mut Scheduler) -> bool {
        if scheduler.is_idle() {
            match self.jobs.recv_timeout(Duration::from_millis(100)) {
                Ok(job) => scheduler.take(job),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        self.jobs.try_iter().for_each(|job| scheduler.take(job));
        true
    }
}

struct Item {
    work: Work,
    events: Events,
}

impl Item {
    fn send(&self, event: Event) {
        let _ = self.events.send((self.work.index, event)); // the client may have disconnected
    }

    fn is_wanted(&self) -> bool {
        !self.events.is_closed()
    }
}

struct Scheduler<'a> {
    model: &'a Model,
    tokenizer: &'a Tokenizer,
    to_score: Vec<Item>,
    round: VecDeque<Vec<Item>>,
    to_write: VecDeque<Item>,
    writing: Vec<(Item, Sequence<'a>)>,
}

impl<'a> Scheduler<'a> {
    fn new(model: &'a Model, tokenizer: &'a Tokenizer) -> Self {
        Self {
            model,
            tokenizer,
            to_score: vec![],
            round: VecDeque::new(),
            to_write: VecDeque::new(),
            writing: vec![],
        }
    }

    fn is_idle(&self) -> bool {
        self.to_score.is_empty()
            && self.round.is_empty()
            && self.to_write.is_empty()
            && self.writing.is_empty()
    }

    fn take(&mut self, job: CompletionJob) {
        for work in job.works {
            let item = Item { work, events: job.events.clone() };
            match item.work.scored {
                true => self.to_score.push(item),
                false => self.pass_on(item),
            }
        }
    }

    /// Queues the item for generation, if any token is to be generated.
    fn pass_on(&mut self, item: Item) {
        match item.work.settings.max_tokens {
            0 => item.send(Event::Nothing),
            _ => self.to_write.push_back(item),
        }
    }

    fn turn(&mut self) {
        self.score();
        self.write();
    }

    fn score(&mut self) {
        if self.round.is_empty() {
            self.plan();
        }
        let Some(mut batch) = self.round.pop_front() else { return };
        batch.retain(Item::is_wanted);
        if batch.is_empty() {
            return;
        }
        let prompts: Vec<(&[u32], usize)> =
            batch.iter().map(|i| (i.work.prompt.as_slice(), i.work.settings.logprobs.unwrap_or(0))).collect();
        match score(self.model, &prompts) {
            Ok(scored) => batch.into_iter().zip(scored).for_each(|(item, scored)| self.answer(item, scored)),
            Err(e) => batch.iter().for_each(|item| item.send(Event::Failed(e.clone()))),
        }
    }

    /// Starts a round with all prompts that wait.
    fn plan(&mut self) {
        self.to_score.retain(Item::is_wanted);
        let prompts: Vec<&[u32]> = self.to_score.iter().map(|i| i.work.prompt.as_slice()).collect();
        let batches = plan(&prompts, self.model.config().context);
        let mut items: Vec<Option<Item>> = self.to_score.drain(..).map(Some).collect();
        self.round =
            batches.iter().map(|batch| batch.iter().filter_map(|&i| items[i].take()).collect()).collect();
    }

    fn answer(&mut self, item: Item, scored: Result<Scored>) {
        let scored = match scored {
            Ok(scored) => scored,
            Err(e) => return item.send(Event::Failed(e)),
        };
        item.send(Event::Prompt(scored.prompt));
        let settings = &item.work.settings;
        match scored.next {
            None if settings.max_tokens > 0 => item.send(Event::NoRoom),
            Some(next) if settings.max_tokens == 1 && settings.sampling.is_greedy() => {
                item.send(self.first(&item.work, next))
            }
            _ => self.pass_on(item),
        }
    }

    /// The only token of a text, which scoring has already computed.
    fn first(&self, work: &Work, next: Entry) -> Event {
        let mut sequence = Sequence::new(self.model, self.tokenizer, &work.prompt, &work.settings);
        sequence.accept(self.model, next.token, Some(next)).map_or_else(Event::Failed, Event::Step)
    }

    fn write(&mut self) {
        self.writing.retain(|(item, _)| item.is_wanted());
        while self.writing.len() < TOGETHER
            && let Some(item) = self.to_write.pop_front()
        {
            let sequence = Sequence::new(self.model, self.tokenizer, &item.work.prompt, &item.work.settings);
            self.writing.push((item, sequence));
        }
        if self.writing.is_empty() {
            return;
        }
        let mut sequences: Vec<&mut Sequence> = self.writing.iter_mut().map(|(_, s)| s).collect();
        match advance(self.model, &mut sequences) {
            Ok(steps) => self.hand_out(steps),
            Err(e) => self.writing.drain(..).for_each(|(item, _)| item.send(Event::Failed(e.clone()))),
        }
    }

    fn hand_out(&mut self, steps: Vec<Option<Result<Step>>>) {
        let mut events =
            steps.into_iter().map(|step| step.map(|s| s.map_or_else(Event::Failed, Event::Step)));
        self.writing.retain(|(item, _)| {
            let Some(event) = events.next().flatten() else { return true };
            let stays = !event.is_last();
            item.send(event);
            stays
        });
    }
}

//! The thread of a model: takes requests, steps its engine, and tells who asked.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use kindling_config::Pooling;
use kindling_infer::{Engine, EngineLimits, Event, InferError, Request, RequestId, embed};
use kindling_model::Gpt;
use kindling_tokenizer::Tokenizer;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::ServeOptions;
use crate::error::ApiError;
use crate::metrics::Metrics;

/// Texts whose vectors are computed at once.
const EMBEDDED_AT_ONCE: usize = 32;

/// What a thread is asked for.
enum Command {
    Write { request: Request, told: Told },
    Embed(Embedding),
}

/// Texts whose vectors are wanted, and those that there are.
struct Embedding {
    texts: Vec<String>,
    vectors: Vec<Vec<f32>>,
    told: oneshot::Sender<Result<Vec<Vec<f32>>, InferError>>,
    /// Free again when this has been told.
    _place: Place,
}

/// Who hears of a text: events with the number that it has among those of one request.
pub(crate) struct Told {
    pub(crate) number: usize,
    pub(crate) events: UnboundedSender<(usize, Event)>,
    /// Free again when this text has ended.
    pub(crate) _place: Place,
}

/// A place in the queue, which is free again when this is dropped.
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    metrics: Arc<Metrics>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
    }
}

/// A model's thread, seen from outside.
pub(crate) struct Worker {
    commands: Sender<Command>,
    thread: JoinHandle<()>,
    queue: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl Worker {
    /// Starts the thread; it ends with this.
    pub(crate) fn start(
        name: &str,
        (model, draft): (Gpt, Option<(Gpt, usize)>),
        tokenizer: Arc<Tokenizer>,
        options: &ServeOptions,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (commands, orders) = channel();
        let (limits, of_thread) = (options.engine, metrics.clone());
        let work = move || {
            let draft = draft.as_ref().map(|(draft, n)| (draft, *n));
            Work { model: &model, draft, tokenizer: &tokenizer, metrics: &of_thread }.until_nobody_asks(limits, &orders);
        };
        let thread = std::thread::Builder::new().name(format!("model {name}")).spawn(work).expect("a thread can be started");
        Self { commands, thread, queue: Arc::new(Semaphore::new(options.max_queue)), metrics }
    }

    /// A place in the queue for each of `n` texts.
    pub(crate) fn places(&self, n: usize) -> Result<Vec<Place>, ApiError> {
        let place = || {
            let permit = self.queue.clone().try_acquire_owned().map_err(|_| ApiError::busy())?;
            self.metrics.in_flight.inc();
            Ok(Place { _permit: permit, metrics: self.metrics.clone() })
        };
        (0..n).map(|_| place()).collect()
    }

    /// Whether the thread still takes requests.
    pub(crate) fn is_alive(&self) -> bool {
        !self.thread.is_finished()
    }

    pub(crate) fn write(&self, request: Request, told: Told) -> Result<(), ApiError> {
        self.send(Command::Write { request, told })
    }

    pub(crate) async fn embed(&self, texts: Vec<String>, place: Place) -> Result<Vec<Vec<f32>>, ApiError> {
        let (told, answer) = oneshot::channel();
        self.send(Command::Embed(Embedding { texts, vectors: Vec::new(), told, _place: place }))?;
        let vectors = answer.await.map_err(|_| ApiError::internal("the model has stopped"))?;
        vectors.map_err(|error| ApiError::of(&error, "input"))
    }

    fn send(&self, command: Command) -> Result<(), ApiError> {
        self.commands.send(command).map_err(|_| ApiError::internal("the model has stopped"))
    }
}

/// A text that somebody waits for.
struct Client {
    told: Told,
    /// When it was asked for, or its last token came.
    since: Instant,
    n_new: usize,
}

struct Work<'a> {
    model: &'a Gpt,
    draft: Option<(&'a Gpt, usize)>,
    tokenizer: &'a Tokenizer,
    metrics: &'a Metrics,
}

impl Work<'_> {
    fn until_nobody_asks(&self, limits: EngineLimits, orders: &Receiver<Command>) {
        let mut engine = Engine::new(self.model, self.tokenizer, limits);
        if let Some((draft, n_tokens)) = self.draft {
            engine = engine.with_draft(draft, n_tokens).expect("a draft is checked before it is served");
        }
        let (mut clients, mut embeddings) = (HashMap::<RequestId, Client>::new(), VecDeque::<Embedding>::new());
        loop {
            // Whoever has left waits for nothing.
            clients.retain(|id, client| {
                let is_there = !client.told.events.is_closed();
                if !is_there {
                    engine.cancel(*id);
                }
                is_there
            });
            embeddings.retain(|embedding| !embedding.told.is_closed());
            loop {
                let is_idle = clients.is_empty() && embeddings.is_empty();
                let order = if is_idle { orders.recv().map_err(|_| TryRecvError::Disconnected) } else { orders.try_recv() };
                match order {
                    Ok(Command::Write { request, told }) => self.add(request, told, &mut engine, &mut clients),
                    Ok(Command::Embed(embedding)) => embeddings.push_back(embedding),
                    Err(TryRecvError::Disconnected) if is_idle => return,
                    Err(_) => break,
                }
            }
            // On a thread of the pool, so that the parts of a step do not each wait for one.
            for (id, event) in rayon::scope(|_| engine.step()) {
                self.tell(id, event, &mut clients);
            }
            // A few vectors, so that texts do not wait long for the others.
            if let Some(embedding) = embeddings.pop_front() {
                embeddings.extend(self.embed(embedding));
            }
        }
    }

    fn add(&self, request: Request, told: Told, engine: &mut Engine<'_>, clients: &mut HashMap<RequestId, Client>) {
        self.metrics.prompt_tokens.inc_by(request.prompt.len() as u64);
        match engine.add(request) {
            Ok(id) => drop(clients.insert(id, Client { told, since: Instant::now(), n_new: 0 })),
            Err(error) => drop(told.events.send((told.number, Event::Failed(error)))),
        }
    }

    /// Computes the next vectors; gives back what is not finished. Who has left meanwhile is told nothing.
    fn embed(&self, mut embedding: Embedding) -> Option<Embedding> {
        let from = embedding.vectors.len();
        let to = embedding.texts.len().min(from + EMBEDDED_AT_ONCE);
        match embed(self.model, self.tokenizer, &embedding.texts[from..to], Pooling::Mean, EMBEDDED_AT_ONCE, &mut |_, _| {}) {
            Ok((vectors, _)) => embedding.vectors.extend(vectors),
            Err(error) => {
                let _ = embedding.told.send(Err(error));
                return None;
            }
        }
        if to < embedding.texts.len() {
            return Some(embedding);
        }
        let _ = embedding.told.send(Ok(embedding.vectors));
        None
    }

    fn tell(&self, id: RequestId, event: Event, clients: &mut HashMap<RequestId, Client>) {
        let Some(client) = clients.get_mut(&id) else { return };
        if matches!(event, Event::Token { .. }) {
            let seconds = client.since.elapsed().as_secs_f64();
            (if client.n_new == 0 { &self.metrics.first_token } else { &self.metrics.between_tokens }).observe(seconds);
            self.metrics.new_tokens.inc();
            client.n_new += 1;
            client.since = Instant::now();
        }
        let is_last = matches!(event, Event::Ended { .. } | Event::Failed(_));
        // One that has left is forgotten before the next step.
        let _ = client.told.events.send((client.told.number, event));
        if is_last {
            clients.remove(&id);
        }
    }
}

//! A machine that comes to harm, and connections to it.

use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_util::future::BoxFuture;
use tower_load::meter::LoadReport;
use tower_service::Service;

use crate::server::{Failed, Server, Work};
use crate::world::{MILLI, Nanos, World, duration};

/// What becomes of requests and connections to a machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Health {
    /// It works, at a part of its speed.
    Up { slower: f64 },
    /// It takes connections and requests, and never answers.
    Stalled,
    /// Nobody is there: connections break and can't be made.
    Down,
}

/// Clones are the same machine.
#[derive(Clone)]
pub(crate) struct Machine {
    world: World,
    server: Server,
    state: Arc<Mutex<State>>,
}

struct State {
    health: Health,
    /// Counts the times that it went down: connections of an earlier life are broken.
    life: u64,
    /// Of connections that wait for requests.
    wakers: Vec<Waker>,
    connections: usize,
}

/// A connection to a [`Machine`]. It isn't ready any more, but fails, when it is broken.
pub(crate) struct Connection {
    machine: Machine,
    life: u64,
}

/// Connects to machines, some time away.
#[derive(Clone, Debug)]
pub(crate) struct Connect {
    pub(crate) machines: Arc<Vec<Machine>>,
    pub(crate) takes: Nanos,
}

impl Machine {
    pub(crate) fn new(world: &World, processors: f64) -> Self {
        Self {
            world: world.clone(),
            server: Server::new(world, processors),
            state: Arc::new(Mutex::new(State {
                health: Health::Up { slower: 1.0 },
                life: 0,
                wakers: Vec::new(),
                connections: 0,
            })),
        }
    }

    /// Changes the machine's health, now.
    pub(crate) fn set(&self, health: Health) {
        let wakers = {
            let mut state = self.state();
            state.health = health;
            if health == Health::Down {
                state.life += 1;
                std::mem::take(&mut state.wakers)
            } else {
                Vec::new()
            }
        };
        if health == Health::Down {
            self.server.drop_all();
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Counts the connections to it that haven't been dropped.
    pub(crate) fn connections(&self) -> usize {
        self.state().connections
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(&self) -> Result<Connection, Failed> {
        let mut state = self.state();
        if state.health == Health::Down {
            return Err(Failed::Refused);
        }
        state.connections += 1;
        Ok(Connection {
            machine: self.clone(),
            life: state.life,
        })
    }
}

impl Connection {
    /// Asks how many requests the machine has in flight. It takes a moment, or for ever where the machine has stalled.
    pub(crate) async fn ask(self) -> Option<LoadReport> {
        let machine = &self.machine;
        machine.world.sleep(MILLI / 2).await;
        let (health, life) = {
            let state = machine.state();
            (state.health, state.life)
        };
        match health {
            Health::Stalled => pending().await,
            Health::Up { .. } if life == self.life => {
                let in_flight = machine.server.in_flight();
                Some(LoadReport::new(
                    in_flight as u32,
                    Some(duration(20 * MILLI)),
                ))
            }
            _ => None,
        }
    }
}

impl Clone for Connection {
    fn clone(&self) -> Self {
        self.machine.state().connections += 1;
        Self {
            machine: self.machine.clone(),
            life: self.life,
        }
    }
}

impl Service<usize> for Connect {
    type Response = Connection;
    type Error = Failed;
    type Future = BoxFuture<'static, Result<Connection, Failed>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, index: usize) -> Self::Future {
        let (machine, takes) = (self.machines[index].clone(), self.takes);
        Box::pin(async move {
            machine.world.sleep(takes).await;
            machine.connect()
        })
    }
}

impl Service<Work> for Connection {
    type Response = ();
    type Error = Failed;
    type Future = BoxFuture<'static, Result<(), Failed>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        let mut state = self.machine.state();
        if state.life != self.life {
            return Poll::Ready(Err(Failed::Gone));
        }
        if !state.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.wakers.push(cx.waker().clone());
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, Work(work): Work) -> Self::Future {
        let health = self.machine.state().health;
        let is_broken = self.machine.state().life != self.life;
        match health {
            _ if is_broken => Box::pin(std::future::ready(Err(Failed::Gone))),
            Health::Down => Box::pin(std::future::ready(Err(Failed::Refused))),
            // Whoever asks has a timeout, or waits for ever.
            Health::Stalled => Box::pin(pending()),
            Health::Up { slower } => Box::pin(self.machine.server.call(Work(work * slower))),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.machine.state().connections -= 1;
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine")
            .field("health", &self.state().health)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("life", &self.life)
            .finish_non_exhaustive()
    }
}

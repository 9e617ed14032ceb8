//! How a server tells its connections to drain and to end, and how it counts them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// What connections are told. It only ever rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Order {
    Serve,
    Drain,
    Abort,
}

/// What a server and its connections share.
#[derive(Debug)]
pub(crate) struct Gate {
    order: AtomicU8,
    ordered: Arc<Notify>,
    open: AtomicUsize,
    /// A connection has ended.
    ended: Notify,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self {
            order: AtomicU8::new(Order::Serve as u8),
            ordered: Arc::new(Notify::new()),
            open: AtomicUsize::new(0),
            ended: Notify::new(),
        }
    }

    pub(crate) fn order(&self) -> Order {
        // Acquire: pairs with `tell`, so that whoever sees the order sees what came before it.
        match self.order.load(Ordering::Acquire) {
            0 => Order::Serve,
            1 => Order::Drain,
            _ => Order::Abort,
        }
    }

    pub(crate) fn tell(&self, order: Order) {
        // Once for each order: whoever is woken by one finds a new one, and gets in line again.
        if self.order.fetch_max(order as u8, Ordering::AcqRel) < order as u8 {
            self.ordered.notify_waiters();
        }
    }

    /// Waits until the order is `order` or a later one.
    pub(crate) async fn told(&self, order: Order) {
        loop {
            let ordered = self.ordered.notified();
            if self.order() >= order {
                return;
            }
            ordered.await;
        }
    }

    pub(crate) fn open_connections(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Counts a connection until the guard is dropped.
    pub(crate) fn enter(self: &Arc<Self>) -> Entered {
        self.open.fetch_add(1, Ordering::AcqRel);
        Entered(Arc::clone(self))
    }

    /// Waits until fewer than `count` connections are open.
    pub(crate) async fn fewer_than(&self, count: usize) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            // It must be in line before the count is read, or an end in between would be missed.
            ended.as_mut().enable();
            if self.open_connections() < count {
                return;
            }
            ended.await;
        }
    }
}

/// One open connection.
#[derive(Debug)]
pub(crate) struct Entered(Arc<Gate>);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.ended.notify_waiters();
    }
}

pin_project! {
    /// Hears the orders for one connection.
    #[derive(Debug)]
    pub(crate) struct Ear {
        gate: Arc<Gate>,
        // In line for the next order, once it was polled.
        #[pin]
        ordered: Option<OwnedNotified>,
        heard: Order,
    }
}

impl Ear {
    pub(crate) fn new(gate: Arc<Gate>) -> Self {
        Self {
            gate,
            ordered: None,
            heard: Order::Serve,
        }
    }

    /// The order where it is a new one. Looks only, unless the waker has changed (`is_moved`).
    #[inline]
    pub(crate) fn poll_new(
        self: Pin<&mut Self>,
        is_moved: bool,
        cx: &mut Context<'_>,
    ) -> Option<Order> {
        if !is_moved && self.gate.order() == self.heard {
            return None;
        }
        self.register(cx)
    }

    fn register(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Option<Order> {
        let mut this = self.project();
        loop {
            if this.ordered.is_none() {
                let ordered = Arc::clone(&this.gate.ordered).notified_owned();
                this.ordered.set(Some(ordered));
            }
            // In line first, then look: an order in between is seen or wakes.
            let told = match this.ordered.as_mut().as_pin_mut() {
                Some(ordered) => ordered.poll(cx),
                None => Poll::Pending,
            };
            if told.is_ready() {
                this.ordered.set(None);
                continue;
            }
            let order = this.gate.order();
            let is_new = order != *this.heard;
            *this.heard = order;
            return is_new.then_some(order);
        }
    }
}

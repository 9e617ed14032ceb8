//! Where the to-dos are kept: SQLite, brought up to date when it is opened.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, Row, named_params};
use rusqlite_migration::{M, Migrations};
use tower_web::BoxError;

use crate::{Change, NewTodo, Page, Todo};

/// Those that have run stay as they are; a change of the schema is one more.
const STEPS: &[M<'_>] = &[
    M::up(include_str!("migrations/1-todos.sql")),
    M::up(include_str!("migrations/2-notes.sql")),
];
const MIGRATIONS: Migrations<'_> = Migrations::from_slice(STEPS);

/// The database. A clone is another handle to it.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    // SQLite writes one after the other anyway, and a read takes microseconds: one connection is enough.
    connection: Arc<Mutex<Connection>>,
}

impl Store {
    /// Opens the database in a file, makes it where there is none, and runs the migrations that it hasn't seen.
    pub(crate) fn open(path: &Path) -> Result<Self, BoxError> {
        Self::prepare(Connection::open(path)?)
    }

    /// A database in memory, for tests.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Self {
        let connection = Connection::open_in_memory().expect("there is memory");
        Self::prepare(connection).expect("the migrations fit an empty database")
    }

    fn prepare(mut connection: Connection) -> Result<Self, BoxError> {
        // Readers and the writer don't wait for each other, and a commit survives a crash of the process.
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "normal")?;
        MIGRATIONS.to_latest(&mut connection)?;
        Ok(Self {
            connection: Arc::new(Mutex::new(connection)),
        })
    }

    /// Runs a query where it may block.
    async fn run<T, F>(&self, query: F) -> Result<T, BoxError>
    where
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let connection = Arc::clone(&self.connection);
        let query = tokio::task::spawn_blocking(move || {
            // A query that panicked has left no transaction open: each is one statement.
            query(&connection.lock().unwrap_or_else(PoisonError::into_inner))
        });
        Ok(query.await??)
    }

    pub(crate) async fn page(&self, page: Page) -> Result<Vec<Todo>, BoxError> {
        self.run(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT id, title, note, done FROM todos
                 WHERE id > :after AND (:done IS NULL OR done = :done)
                 ORDER BY id LIMIT :limit",
            )?;
            let parameters = named_params! {
                ":after": page.after.unwrap_or(0),
                ":done": page.done,
                ":limit": page.limit.unwrap_or(20),
            };
            query.query_map(parameters, todo)?.collect()
        })
        .await
    }

    pub(crate) async fn find(&self, id: u32) -> Result<Option<Todo>, BoxError> {
        self.run(move |connection| {
            connection
                .prepare_cached("SELECT id, title, note, done FROM todos WHERE id = :id")?
                .query_row(named_params! { ":id": id }, todo)
                .optional()
        })
        .await
    }

    pub(crate) async fn add(&self, new: NewTodo) -> Result<Todo, BoxError> {
        self.run(move |connection| {
            connection
                .prepare_cached(
                    "INSERT INTO todos (title, note) VALUES (:title, :note)
                     RETURNING id, title, note, done",
                )?
                .query_row(
                    named_params! { ":title": new.title, ":note": new.note },
                    todo,
                )
        })
        .await
    }

    /// Changes what is told, and leaves the rest; `None` where there is no such to-do.
    pub(crate) async fn change(&self, id: u32, change: Change) -> Result<Option<Todo>, BoxError> {
        self.run(move |connection| {
            connection
                .prepare_cached(
                    "UPDATE todos SET
                        title = coalesce(:title, title),
                        note = coalesce(:note, note),
                        done = coalesce(:done, done)
                     WHERE id = :id
                     RETURNING id, title, note, done",
                )?
                .query_row(
                    named_params! {
                        ":id": id,
                        ":title": change.title,
                        ":note": change.note,
                        ":done": change.done,
                    },
                    todo,
                )
                .optional()
        })
        .await
    }

    /// Whether it was there.
    pub(crate) async fn remove(&self, id: u32) -> Result<bool, BoxError> {
        self.run(move |connection| {
            let removed = connection
                .prepare_cached("DELETE FROM todos WHERE id = :id")?
                .execute(named_params! { ":id": id })?;
            Ok(removed > 0)
        })
        .await
    }

    /// Whether the database answers.
    pub(crate) async fn check(&self) -> Result<(), BoxError> {
        self.run(|connection| connection.query_row("SELECT 1", [], |_| Ok(())))
            .await
    }
}

fn todo(row: &Row<'_>) -> rusqlite::Result<Todo> {
    Ok(Todo {
        id: row.get("id")?,
        title: row.get("title")?,
        note: row.get("note")?,
        done: row.get("done")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_migrations_are_sound() {
        MIGRATIONS.validate().unwrap();
    }

    #[tokio::test]
    async fn what_was_kept_is_there_after_a_restart() {
        let path = std::env::temp_dir().join(format!("tower-todo-{}.db", std::process::id()));
        let new = NewTodo {
            title: "milk".into(),
            note: None,
        };
        Store::open(&path).unwrap().add(new).await.unwrap();
        let todo = Store::open(&path).unwrap().find(1).await.unwrap();
        assert_eq!(todo.unwrap().title, "milk");
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
        }
    }
}

//! Statements whose number of parameters depends on the data. PostgreSQL wants parameters numbered. SQLite takes numbered ones too, but
//! its driver asks for the name of each, which is looked for among all of them: with thousands, that is most of the work.

use std::fmt::Write as _;

use sqlx::any::AnyArguments;
use sqlx::query::Query;
use sqlx::{Any, Arguments as _, AssertSqlSafe, Encode, Type};

use super::engine::Engine;

/// A statement that is being built. It is not kept prepared unless one says so: the next one is hardly ever of the same length.
pub(super) struct Built {
    engine: Engine,
    text: String,
    arguments: AnyArguments,
    bound: usize,
}

impl Built {
    /// Begins with fixed text, for an engine.
    pub(super) fn new(engine: Engine, text: &'static str) -> Self {
        Self { engine, text: text.to_owned(), arguments: AnyArguments::default(), bound: 0 }
    }

    /// Begins an insertion of many rows. On SQLite one that fails is not taken back by itself, for which every page would be copied
    /// before it is written to; the caller drops the transaction.
    pub(super) fn insert(engine: Engine) -> Self {
        Self::new(engine, if engine == Engine::Sqlite { "INSERT OR FAIL INTO " } else { "INSERT INTO " })
    }

    /// Appends fixed text.
    pub(super) fn push(&mut self, text: &'static str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// Appends a parameter.
    pub(super) fn bind<'v>(&mut self, value: impl Encode<'v, Any> + Type<Any>) -> Result<&mut Self, sqlx::Error> {
        self.arguments.add(value).map_err(sqlx::Error::Encode)?;
        self.bound += 1;
        match self.engine {
            Engine::Sqlite => self.text.push('?'),
            Engine::Postgres => {
                let _ = write!(self.text, "${}", self.bound);
            }
        }
        Ok(self)
    }

    /// Appends a number that is the same in all statements of its length, so that it need not be a parameter.
    pub(super) fn number(&mut self, number: i64) -> &mut Self {
        let _ = write!(self.text, "{number}");
        self
    }

    /// Appends items with commas between.
    pub(super) fn list<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut put: impl FnMut(&mut Self, T) -> Result<(), sqlx::Error>,
    ) -> Result<&mut Self, sqlx::Error> {
        for (number, item) in items.into_iter().enumerate() {
            if number > 0 {
                self.push(", ");
            }
            put(self, item)?;
        }
        Ok(self)
    }

    /// The statement, ready to run.
    pub(super) fn done<'q>(self) -> Query<'q, Any, AnyArguments> {
        self.done_kept(false)
    }

    /// The statement, ready to run; what the driver compiled is kept when others of the same length will come.
    pub(super) fn done_kept<'q>(self, will_come_again: bool) -> Query<'q, Any, AnyArguments> {
        sqlx::query_with(AssertSqlSafe(self.text), self.arguments).persistent(will_come_again)
    }
}

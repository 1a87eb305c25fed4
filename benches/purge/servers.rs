//! The two servers, the tables, and equal copies of them.

use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, PgConnection};

use super::Result;

/// A database engine that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Postgres,
    Mariadb,
}

impl Engine {
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::Mariadb => "MariaDB",
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mariadb => "mariadb",
        }
    }

    pub fn variable(self) -> &'static str {
        match self {
            Self::Postgres => "WANGCHUAN_TEST_POSTGRES",
            Self::Mariadb => "WANGCHUAN_TEST_MARIADB",
        }
    }
}

/// What is due: older than the retention of three years. Rows are some 200 bytes, their children some 80.
pub const DUE: &str = "done_at < now() - interval '3' year";

/// A running server.
pub struct Server {
    pub engine: Engine,
    /// Its address without a database.
    pub address: String,
}

/// One connection to either.
pub enum Client {
    Postgres(PgConnection),
    Mariadb(MySqlConnection),
}

impl Client {
    /// Runs statements; returns how many rows they touched.
    pub async fn run(&mut self, sql: &str) -> Result<u64> {
        let query = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        Ok(match self {
            Self::Postgres(connection) => query.execute(connection).await?.rows_affected(),
            Self::Mariadb(connection) => query.execute(connection).await?.rows_affected(),
        })
    }

    /// The whole numbers of the first column.
    pub async fn numbers(&mut self, sql: &str) -> Result<Vec<i64>> {
        let query = AssertSqlSafe(sql.to_owned());
        Ok(match self {
            Self::Postgres(connection) => sqlx::query_scalar(query).fetch_all(connection).await?,
            Self::Mariadb(connection) => sqlx::query_scalar(query).fetch_all(connection).await?,
        })
    }

    /// The text of the first row.
    pub async fn text(&mut self, sql: &str) -> Result<String> {
        let query = AssertSqlSafe(sql.to_owned());
        Ok(match self {
            Self::Postgres(connection) => sqlx::query_scalar(query).fetch_one(connection).await?,
            Self::Mariadb(connection) => sqlx::query_scalar(query).fetch_one(connection).await?,
        })
    }
}

impl Server {
    /// The server that `tests/run` started.
    pub fn named(engine: Engine) -> Option<Self> {
        let url = std::env::var(engine.variable()).ok()?;
        let (scheme, rest) = url.split_once("://")?;
        let address = format!("{scheme}://{}", rest.split(['/', '?']).next()?);
        Some(Self { engine, address })
    }

    fn own_database(&self) -> &'static str {
        match self.engine {
            Engine::Postgres => "postgres",
            Engine::Mariadb => "mysql",
        }
    }

    /// The address of a database.
    pub fn url(&self, database: &str) -> String {
        format!("{}/{database}", self.address)
    }

    pub async fn connect(&self, database: &str) -> Result<Client> {
        Ok(match self.engine {
            Engine::Postgres => Client::Postgres(PgConnection::connect(&self.url(database)).await?),
            Engine::Mariadb => Client::Mariadb(MySqlConnection::connect(&self.url(database)).await?),
        })
    }

    pub async fn drop_database(&self, name: &str) -> Result<()> {
        let force = if self.engine == Engine::Postgres { " WITH (FORCE)" } else { "" };
        self.connect(self.own_database()).await?.run(&format!("DROP DATABASE IF EXISTS {name}{force}")).await?;
        Ok(())
    }

    /// A database with so many orders, the first `due` of them due, and a line for each.
    pub async fn fill(&self, name: &str, rows: u64, due: u64) -> Result<()> {
        self.drop_database(name).await?;
        self.connect(self.own_database()).await?.run(&format!("CREATE DATABASE {name}")).await?;
        let mut client = self.connect(name).await?;
        client.run(&self.tables()).await?;
        let (series, options) = match self.engine {
            Engine::Postgres => (format!("generate_series(CAST(1 AS bigint), {rows}) AS n"), ""),
            Engine::Mariadb => (format!("(SELECT seq AS n FROM seq_1_to_{rows}) AS s"), ""),
        };
        // In the order of time, as orders come, give or take a month.
        let age = format!(
            "CASE WHEN n <= {due} THEN 1200 + ({due} - n) * 300 / {due} ELSE 60 + ({rows} - n) * 900 / {rows} END \
             - (n * 7919 % 30)"
        );
        let done_at = match self.engine {
            Engine::Postgres => format!("now() - ({age}) * interval '1 day'"),
            Engine::Mariadb => format!("now() - INTERVAL FLOOR({age}) DAY"),
        };
        client
            .run(&format!(
                "INSERT INTO orders SELECT n, 1 + n * 7919 % {}, {done_at}, n % 7, n % 1000, \
                 concat('street ', md5(n), ' house ', n % 311), concat('note ', md5(n + 1), md5(n + 2)) FROM {series}{options}",
                rows / 30 + 1
            ).replace("md5(n", if self.engine == Engine::Postgres { "md5('' || n" } else { "md5(n" }))
            .await?;
        let product = if self.engine == Engine::Postgres { "md5('' || n)" } else { "md5(n)" };
        client
            .run(&format!(
                "INSERT INTO order_line SELECT n, n, concat('product ', {product}), 1 + n % 5 FROM {series}{options}"
            ))
            .await?;
        client.run(INDEXES).await?;
        self.settle(&mut client).await
    }

    fn tables(&self) -> String {
        let (time, engine) = match self.engine {
            Engine::Postgres => ("timestamptz", ""),
            Engine::Mariadb => ("datetime", " ENGINE=InnoDB"),
        };
        format!(
            "CREATE TABLE orders (id bigint NOT NULL PRIMARY KEY, customer_id bigint NOT NULL, done_at {time}, status int NOT NULL, \
             total numeric(12,2) NOT NULL, address varchar(120), note varchar(200)){engine};
             CREATE TABLE order_line (id bigint NOT NULL PRIMARY KEY, order_id bigint NOT NULL, product varchar(80), \
             quantity int NOT NULL){engine}"
        )
    }

    async fn settle(&self, client: &mut Client) -> Result<()> {
        match self.engine {
            Engine::Postgres => {
                client.run("VACUUM ANALYZE orders").await?;
                client.run("VACUUM ANALYZE order_line").await?;
                client.run("CHECKPOINT").await?;
            }
            Engine::Mariadb => {
                client.run("ANALYZE TABLE orders, order_line").await?;
            }
        }
        Ok(())
    }

    /// An equal copy of `base`.
    pub async fn copy(&self, name: &str) -> Result<()> {
        self.drop_database(name).await?;
        let mut client = self.connect(self.own_database()).await?;
        match self.engine {
            Engine::Postgres => {
                client.run(&format!("CREATE DATABASE {name} TEMPLATE base STRATEGY FILE_COPY")).await?;
                client.run("CHECKPOINT").await?;
            }
            Engine::Mariadb => {
                client.run(&format!("CREATE DATABASE {name}")).await?;
                let mut client = self.connect(name).await?;
                client.run(&self.tables()).await?;
                client.run("INSERT INTO orders SELECT * FROM base.orders ORDER BY id").await?;
                client.run("INSERT INTO order_line SELECT * FROM base.order_line ORDER BY id").await?;
                client.run(INDEXES).await?;
                self.settle(&mut client).await?;
            }
        }
        Ok(())
    }

    /// How many orders and lines there are.
    pub async fn rows(&self, name: &str) -> Result<u64> {
        let mut client = self.connect(name).await?;
        let counted =
            client.numbers("SELECT (SELECT count(*) FROM orders) + (SELECT count(*) FROM order_line)").await?;
        Ok(counted.first().copied().unwrap_or(0).unsigned_abs())
    }

    /// The server's first process.
    pub async fn process(&self) -> Result<u32> {
        let mut client = self.connect(self.own_database()).await?;
        let file = match self.engine {
            Engine::Postgres => format!("{}/postmaster.pid", client.text("SHOW data_directory").await?),
            Engine::Mariadb => client.text("SELECT @@pid_file").await?,
        };
        let text = std::fs::read_to_string(&file)?;
        Ok(text.lines().next().unwrap_or_default().trim().parse()?)
    }
}

const INDEXES: &str = "CREATE INDEX orders_done ON orders (done_at);
     CREATE INDEX orders_customer ON orders (customer_id);
     CREATE INDEX orders_status ON orders (status, total);
     CREATE INDEX line_order ON order_line (order_id);
     ALTER TABLE order_line ADD FOREIGN KEY (order_id) REFERENCES orders (id)";

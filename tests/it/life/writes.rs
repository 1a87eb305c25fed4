//! What the shop does by itself in a life.

use wangchuan::stores::Engine;

use super::Life;
use super::shop::rows_in;

impl Life {
    /// Somebody, as a literal.
    pub(super) fn customer(&mut self) -> String {
        let rows = rows_in(&self.database);
        let mut ids: Vec<String> =
            rows.into_keys().filter(|(table, _)| table == "customers").map(|(_, id)| id).collect();
        let at = self.dice.below(ids.len());
        ids.swap_remove(at)
    }

    /// Who asks for erasure: often somebody of whom nothing must be kept.
    pub(super) fn leaver(&mut self) -> String {
        let rows = rows_in(&self.database);
        let has_orders = |id: &String| rows.iter().any(|((table, _), row)| table == "orders" && row[1] == *id);
        let mut free: Vec<&String> = rows.keys().filter(|(table, _)| table == "customers").map(|(_, id)| id).collect();
        free.retain(|id| !has_orders(id));
        if free.is_empty() || self.dice.chance(30) {
            return self.customer();
        }
        free[self.dice.below(free.len())].clone()
    }

    fn order(&mut self) -> String {
        let rows = rows_in(&self.database);
        let mut ids: Vec<String> = rows.into_keys().filter(|(table, _)| table == "orders").map(|(_, id)| id).collect();
        let at = self.dice.below(ids.len().max(1));
        if ids.is_empty() { "0".to_owned() } else { ids.swap_remove(at) }
    }

    /// One random change.
    pub(super) fn write(&mut self) {
        let (one, order) = (self.customer(), self.order());
        let year = [2022, 2023, 2025][self.dice.below(3)];
        self.next += 1;
        let next = self.next;
        let sql = match self.dice.below(12) {
            0..=2 => vec![
                format!(
                    "INSERT INTO orders (order_id, customer_id, status, placed_at, completed_at, total, shipping_address) VALUES \
                     ({next}, {one}, 'completed', '{year}-02-01 08:00:00', '{year}-02-09 08:00:00', 12, 'street number {next}')"
                ),
                format!(
                    "INSERT INTO order_lines (line_id, order_id, sku, quantity, unit_price) \
                     SELECT {next}, {next}, MIN(sku), 2, 6 FROM products"
                ),
            ],
            3 => vec![format!("UPDATE orders SET shipping_address = 'moved to {next}' WHERE order_id = {order}")],
            // Its lines change hands with it.
            4 => vec![format!("UPDATE orders SET customer_id = {one} WHERE order_id = {order}")],
            5 => vec![format!("UPDATE orders SET completed_at = '{year}-05-05 08:00:00' WHERE order_id = {order}")],
            6 => vec![
                format!("DELETE FROM order_lines WHERE order_id = {order}"),
                format!("DELETE FROM orders WHERE order_id = {order}"),
            ],
            7 => vec![format!(
                "INSERT INTO complaints (complaint_id, customer_id, opened_at, closed_at, body) VALUES \
                 ({next}, {one}, '{year}-03-01 09:00:00', NULL, 'complaint number {next}')"
            )],
            8 => vec![format!(
                "UPDATE newsletter SET unsubscribed_at = '{year}-01-01 00:00:00' WHERE customer_id = {one}"
            )],
            9 | 10 => vec![self.newcomer()],
            _ => vec![format!("UPDATE customers SET address = 'house number {next}' WHERE customer_id = {one}")],
        };
        for statement in sql {
            self.database.run(&statement);
        }
        self.counts.writes += 1;
    }

    /// A new customer, or one who was erased and comes again.
    fn newcomer(&mut self) -> String {
        let back = self.known.gone.first().cloned().filter(|_| self.dice.chance(30));
        let next = self.next;
        let id = match back {
            Some(id) => {
                self.known.gone.remove(&id);
                self.counts.returned += 1;
                id
            }
            None => format!("'new-{next}'"),
        };
        format!(
            "INSERT INTO customers (customer_id, name, id_card, mobile, bank_card, email, address, birth_date, created_at, closed_at, \
             credit_limit, notes) VALUES ({id}, 'person number {next}', 'card {next}', 'phone {next}', 'bank {next}', \
             'mail{next}@example.org', 'house number {next}', '1990-01-02', '2026-03-16 10:00:00', NULL, 5, NULL)"
        )
    }

    /// Empties a table and fills it with what it held, in another order.
    pub(super) fn empty_and_fill(&mut self) {
        let empty = if self.database.engine() == Engine::Sqlite { "DELETE FROM" } else { "TRUNCATE TABLE" };
        self.database.run("CREATE TABLE set_aside AS SELECT * FROM complaints");
        self.database.run(&format!("{empty} complaints"));
        self.database.run("INSERT INTO complaints SELECT * FROM set_aside ORDER BY complaint_id DESC");
        self.database.run("DROP TABLE set_aside");
        self.observe();
    }

    /// A column more.
    pub(super) fn widen(&mut self) {
        let installation = self.installation.take().unwrap();
        self.runtime.block_on(installation.close()).unwrap();
        let kind = if self.database.engine() == Engine::Mysql { "varchar(96)" } else { "text" };
        self.database.run(&format!("ALTER TABLE orders ADD COLUMN channel {kind} NULL"));
        self.installation = Some(self.runtime.block_on(self.world.open()));
        self.observe();
    }
}

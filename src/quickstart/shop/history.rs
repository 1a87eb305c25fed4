//! Writes the shop's history: who registered when, what they ordered, complained about and read.

use std::collections::BTreeMap;

use chrono::{Datelike, NaiveDate, NaiveDateTime, TimeDelta};

use super::dice::Dice;
use super::people::{self, Person, Taken};
use super::{Dialect, MIN_CUSTOMERS, OddOrders, Picks, Settings, Shop, local_now, schema};
use crate::value::{Row, Value};

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
/// How far the history reaches back, in days.
const HISTORY_DAYS: i64 = 7 * 365;
const PRODUCTS: i64 = 60;
/// Every so many orders one ends in the future, and one at a time nobody can read.
const FUTURE_EVERY: i64 = 797;
const UNREADABLE_EVERY: i64 = 601;

/// What is to become of a customer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Story {
    Leaver,
    Keeper,
    Held,
    Ordinary,
}

/// A customer's dealings, times as local.
struct Course {
    created: NaiveDateTime,
    closed: Option<NaiveDateTime>,
    orders: Vec<OrderCourse>,
    complaint: Option<(NaiveDateTime, Option<NaiveDateTime>)>,
    newsletter: Option<(NaiveDateTime, Option<NaiveDateTime>)>,
}

struct OrderCourse {
    placed: NaiveDateTime,
    status: &'static str,
    completed: Option<NaiveDateTime>,
}

/// Collects the rows.
pub struct Writer {
    dialect: Dialect,
    now: NaiveDateTime,
    customers: u32,
    settings: Settings,
    dice: Dice,
    taken: Taken,
    prices: Vec<i64>,
    picks: [String; 3],
    odd_orders: OddOrders,
    canaries: BTreeMap<String, Option<String>>,
    products: Vec<Row>,
    customer_rows: Vec<Row>,
    orders: Vec<Row>,
    order_lines: Vec<Row>,
    complaints: Vec<Row>,
    newsletter: Vec<Row>,
}

impl Writer {
    pub fn new(settings: &Settings) -> Self {
        Self {
            dialect: Dialect(settings.engine),
            now: local_now(settings.now),
            customers: settings.customers.max(MIN_CUSTOMERS),
            settings: *settings,
            dice: Dice::new(settings.seed),
            taken: Taken::default(),
            prices: Vec::new(),
            picks: Default::default(),
            odd_orders: OddOrders::default(),
            canaries: BTreeMap::new(),
            products: Vec::new(),
            customer_rows: Vec::new(),
            orders: Vec::new(),
            order_lines: Vec::new(),
            complaints: Vec::new(),
            newsletter: Vec::new(),
        }
    }

    pub fn write(mut self) -> Shop {
        self.write_products();
        for place in 0..self.customers {
            let story = self.story_of(place);
            self.write_customer(story);
        }
        let [leaver, keeper, held] = self.picks;
        Shop {
            tables: schema::tables(self.settings.engine),
            rows: vec![
                self.products,
                self.customer_rows,
                self.orders,
                self.order_lines,
                self.complaints,
                self.newsletter,
            ],
            picks: Picks { leaver, keeper, held },
            odd_orders: self.odd_orders,
            canaries: self.canaries,
        }
    }

    /// The picks stand among the others, not at the edges of the table.
    fn story_of(&self, place: u32) -> Story {
        match place {
            place if place == self.customers / 4 => Story::Leaver,
            place if place == self.customers / 2 => Story::Keeper,
            place if place == self.customers / 4 * 3 => Story::Held,
            _ => Story::Ordinary,
        }
    }

    fn write_products(&mut self) {
        const KINDS: [&str; 6] =
            ["茶杯 tea cup", "雨伞 umbrella", "台灯 desk lamp", "背包 backpack", "键盘 keyboard", "围巾 scarf"];
        for number in 1..=PRODUCTS {
            let price = self.dice.between(9, 899) * 100 + *self.dice.pick(&[0, 50, 90, 99]);
            let title = format!("{} {number}", KINDS[number as usize % KINDS.len()]);
            self.prices.push(price);
            self.products.push(vec![Dialect::text(&sku(number)), Dialect::text(&title), self.dialect.money(price)]);
        }
    }

    fn write_customer(&mut self, story: Story) {
        let course = self.course(story);
        let birth_date = self.birth_date(course.created.date());
        let person = people::invent(&mut self.dice, &mut self.taken, birth_date);
        let registered = course.created.format("C%Y%m%d").to_string();
        let dice = &mut self.dice;
        let id = self.taken.fresh(|| format!("{registered}{}", dice.digits(6)));
        match story {
            Story::Leaver => self.picks[0].clone_from(&id),
            Story::Keeper => self.picks[1].clone_from(&id),
            Story::Held => self.picks[2].clone_from(&id),
            Story::Ordinary => {}
        }
        for text in
            [&id, &person.name, &person.id_card, &person.mobile, &person.bank_card, &person.email, &person.address]
        {
            self.remember(&id, text);
        }
        self.write_person(&id, &person, &course);
        for order in &course.orders {
            self.write_order(&id, &person, order, story);
        }
        if let Some((opened, closed)) = course.complaint {
            self.write_complaint(&id, &person, opened, closed);
        }
        if let Some((subscribed, unsubscribed)) = course.newsletter {
            self.newsletter.push(vec![
                Dialect::text(&person.email),
                Dialect::text(&id),
                Dialect::time(subscribed),
                Dialect::time_or_null(unsubscribed),
            ]);
        }
    }

    fn write_person(&mut self, id: &str, person: &Person, course: &Course) {
        let limit = self.dice.between(0, 40) * 50_000;
        let notes = match self.dice.below(10) {
            0 => Dialect::text(&format!("回访电话 {}，工作日 18 点以后", person.mobile)),
            1 => Dialect::text("prefers e-mail, no calls"),
            2 => Dialect::text("VIP"),
            _ => Value::Null,
        };
        self.customer_rows.push(vec![
            Dialect::text(id),
            Dialect::text(&person.name),
            Dialect::text(&person.id_card),
            Dialect::text(&person.mobile),
            Dialect::text(&person.bank_card),
            Dialect::text(&person.email),
            Dialect::text(&person.address),
            Dialect::text(&person.birth_date.format("%Y-%m-%d").to_string()),
            Dialect::time(course.created),
            Dialect::time_or_null(course.closed),
            self.dialect.money(limit),
            notes,
        ]);
    }

    fn write_order(&mut self, id: &str, person: &Person, order: &OrderCourse, story: Story) {
        let order_id = 100_001 + self.orders.len() as i64;
        let total = self.write_lines(order_id);
        let address = if self.dice.percent(10) {
            let elsewhere = people::address(&mut self.dice, &mut self.taken);
            self.remember(id, &elsewhere);
            elsewhere
        } else {
            person.address.clone()
        };
        let completed = self.completed_value(order_id, order, story);
        self.orders.push(vec![
            self.dialect.number(order_id),
            Dialect::text(id),
            Dialect::text(order.status),
            Dialect::time(order.placed),
            completed,
            self.dialect.money(total),
            Dialect::text(&address),
        ]);
    }

    /// The end of an order as it stands in the table: mostly true, now and then useless.
    fn completed_value(&mut self, order_id: i64, order: &OrderCourse, story: Story) -> Value {
        if story == Story::Ordinary && order.completed.is_some() {
            if order_id % FUTURE_EVERY == 0 {
                self.odd_orders.future.push(order_id);
                return Dialect::time(self.now + TimeDelta::seconds(self.dice.between(20, 700) * DAY));
            }
            if order_id % UNREADABLE_EVERY == 0
                && let Some(value) = self.dialect.unreadable_time(self.odd_orders.unreadable.len())
            {
                self.odd_orders.unreadable.push(order_id);
                return value;
            }
        }
        if order.completed.is_none() {
            self.odd_orders.open.push(order_id);
        }
        Dialect::time_or_null(order.completed)
    }

    /// Writes 1 to 5 lines and returns their sum in hundredths.
    fn write_lines(&mut self, order_id: i64) -> i64 {
        let lines = *self.dice.pick(&[1, 2, 2, 3, 3, 3, 4, 5]);
        let mut total = 0;
        for _ in 0..lines {
            let product = self.dice.between(1, PRODUCTS);
            let price = self.prices[product as usize - 1];
            let quantity = *self.dice.pick(&[1, 1, 1, 2, 3]);
            total += price * quantity;
            self.order_lines.push(vec![
                self.dialect.number(1 + self.order_lines.len() as i64),
                self.dialect.number(order_id),
                Dialect::text(&sku(product)),
                self.dialect.number(quantity),
                self.dialect.money(price),
            ]);
        }
        total
    }

    fn write_complaint(&mut self, id: &str, person: &Person, opened: NaiveDateTime, closed: Option<NaiveDateTime>) {
        let body = match self.dice.below(3) {
            0 => format!("包裹破损，要求退货。请联系 {}，电话 {}。", person.name, person.mobile),
            1 => format!("Invoice is wrong, please call {} before noon.", person.mobile),
            _ => format!("发货太慢，退款请退到 {}，有事打 {}。", person.bank_card, person.mobile),
        };
        self.complaints.push(vec![
            self.dialect.number(1 + self.complaints.len() as i64),
            Dialect::text(id),
            Dialect::time(opened),
            Dialect::time_or_null(closed),
            Dialect::text(&body),
        ]);
    }

    fn remember(&mut self, id: &str, text: &str) {
        let owner = self.canaries.entry(text.to_owned()).or_insert_with(|| Some(id.to_owned()));
        if owner.as_deref() != Some(id) {
            *owner = None;
        }
    }

    /// A birthday between the 18th and the 75th year of life at registration.
    fn birth_date(&mut self, registered: NaiveDate) -> NaiveDate {
        let (month, day) = (self.dice.between(1, 12) as u32, self.dice.between(1, 28) as u32);
        let year = registered.year() - self.dice.between(19, 74) as i32;
        NaiveDate::from_ymd_opt(year, month, day).unwrap_or(registered)
    }

    fn course(&mut self, story: Story) -> Course {
        match story {
            Story::Leaver => Course {
                created: self.ago(2_400, 2_450),
                closed: Some(self.ago(60, 60)),
                orders: (0..4).map(|_| self.finished_order(1_300, 2_300)).collect(),
                complaint: Some((self.ago(400, 420), Some(self.ago(380, 390)))),
                newsletter: Some((self.ago(2_300, 2_390), Some(self.ago(100, 200)))),
            },
            Story::Keeper => {
                let old = (0..3).map(|_| self.finished_order(1_200, 2_000)).collect::<Vec<_>>();
                let recent = (0..3).map(|_| self.finished_order(30, 690)).collect::<Vec<_>>();
                Course {
                    created: self.ago(2_100, 2_200),
                    closed: None,
                    orders: old.into_iter().chain(recent).collect(),
                    complaint: Some((self.ago(300, 320), Some(self.ago(280, 290)))),
                    newsletter: Some((self.ago(2_000, 2_090), None)),
                }
            }
            Story::Held => Course {
                created: self.ago(2_400, 2_450),
                closed: Some(self.ago(1_180, 1_190)),
                orders: (0..4).map(|_| self.finished_order(1_250, 2_300)).collect(),
                complaint: Some((self.ago(1_500, 1_600), Some(self.ago(1_400, 1_480)))),
                newsletter: Some((self.ago(2_300, 2_390), Some(self.ago(1_200, 1_500)))),
            },
            Story::Ordinary => self.ordinary_course(),
        }
    }

    fn ordinary_course(&mut self) -> Course {
        let created = self.ago(20, HISTORY_DAYS);
        let closed = self.dice.percent(10).then(|| self.after(created, self.now));
        let end = closed.unwrap_or(self.now);
        let count = *self.dice.pick(&[0, 1, 1, 2, 2, 3, 3, 4, 5, 9]);
        let mut orders: Vec<OrderCourse> = (0..count).map(|_| self.ordinary_order(created, end)).collect();
        orders.sort_by_key(|order| order.placed);
        let complaint = self.dice.percent(8).then(|| {
            let opened = self.after(created, end);
            let closed = opened + TimeDelta::seconds(self.dice.between(DAY, 40 * DAY));
            (opened, Some(closed).filter(|closed| *closed < self.now))
        });
        let newsletter = self.dice.percent(40).then(|| {
            let subscribed = self.after(created, end);
            let left = self.dice.percent(30).then(|| self.after(subscribed, end));
            (subscribed, left)
        });
        Course { created, closed, orders, complaint, newsletter }
    }

    /// An order between two times: completed within three weeks, or cancelled, lost, or still under way.
    fn ordinary_order(&mut self, from: NaiveDateTime, to: NaiveDateTime) -> OrderCourse {
        let placed = self.after(from, to);
        let completed = placed + TimeDelta::seconds(self.dice.between(DAY, 21 * DAY));
        match self.dice.below(100) {
            0..3 => OrderCourse { placed, status: "cancelled", completed: None },
            3..5 => OrderCourse { placed, status: "disputed", completed: None },
            _ if completed < self.now => OrderCourse { placed, status: "completed", completed: Some(completed) },
            _ => OrderCourse { placed, status: "shipped", completed: None },
        }
    }

    /// An order completed so many days ago.
    fn finished_order(&mut self, least_days: i64, most_days: i64) -> OrderCourse {
        let completed = self.ago(least_days, most_days);
        let placed = completed - TimeDelta::seconds(self.dice.between(DAY, 9 * DAY));
        OrderCourse { placed, status: "completed", completed: Some(completed) }
    }

    /// A time so many days ago, at any second of the day.
    fn ago(&mut self, least_days: i64, most_days: i64) -> NaiveDateTime {
        self.now - TimeDelta::seconds(self.dice.between(least_days * DAY, most_days * DAY + DAY - 1))
    }

    /// A time between two times.
    fn after(&mut self, from: NaiveDateTime, to: NaiveDateTime) -> NaiveDateTime {
        from + TimeDelta::seconds(self.dice.between(0, (to - from).num_seconds()))
    }
}

fn sku(number: i64) -> String {
    format!("SKU-{number:04}")
}

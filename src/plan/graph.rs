//! What refers to what: strongly connected parts of a graph, and the order in which rows that refer to each other can go.
//! Used for tables (which collections form a circle) and for rows (which rows do).

use std::collections::BTreeSet;

/// The strongly connected parts of a graph with `edges[from]` = the nodes that must come before `from`. Every node of a part
/// comes behind all parts that can be reached from it. Nodes that are tied to nobody keep their order.
#[must_use]
pub fn components(edges: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut walk = Walk {
        edges,
        number: vec![None; edges.len()],
        lowest: vec![0; edges.len()],
        is_open: vec![false; edges.len()],
        open: Vec::new(),
        next: 0,
        found: Vec::new(),
    };
    for node in 0..edges.len() {
        if walk.number[node].is_none() {
            walk.from(node);
        }
    }
    walk.found
}

/// Tarjan's algorithm with a stack of its own: a thread of a hundred thousand replies must not end the process.
struct Walk<'e> {
    edges: &'e [Vec<usize>],
    number: Vec<Option<usize>>,
    lowest: Vec<usize>,
    is_open: Vec<bool>,
    open: Vec<usize>,
    next: usize,
    found: Vec<Vec<usize>>,
}

impl Walk<'_> {
    fn enter(&mut self, node: usize) {
        self.number[node] = Some(self.next);
        self.lowest[node] = self.next;
        self.next += 1;
        self.open.push(node);
        self.is_open[node] = true;
    }

    fn from(&mut self, root: usize) {
        let mut stack = vec![(root, 0)];
        self.enter(root);
        while let Some((node, at)) = stack.pop() {
            if let Some(&to) = self.edges[node].get(at) {
                stack.push((node, at + 1));
                match self.number[to] {
                    None => {
                        self.enter(to);
                        stack.push((to, 0));
                    }
                    Some(number) if self.is_open[to] => self.lowest[node] = self.lowest[node].min(number),
                    Some(_) => {}
                }
                continue;
            }
            if let Some((above, _)) = stack.last() {
                self.lowest[*above] = self.lowest[*above].min(self.lowest[node]);
            }
            if Some(self.lowest[node]) == self.number[node] {
                self.close(node);
            }
        }
    }

    fn close(&mut self, first: usize) {
        let from = self.open.iter().position(|node| *node == first).unwrap_or_default();
        let mut part = self.open.split_off(from);
        for node in &part {
            self.is_open[*node] = false;
        }
        part.sort_unstable();
        self.found.push(part);
    }
}

/// How a reference can be got out of the way when rows refer to each other in a circle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untie {
    /// Not at all.
    Firm,
    /// The database checks it when the transaction commits.
    PutOff,
    /// Its columns may be emptied before the rows go.
    Empty,
}

/// A reference between two rows that are to go together, by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The row referred to.
    pub parent: usize,
    /// The row that refers.
    pub child: usize,
    /// What can be done about it.
    pub untie: Untie,
}

/// In what order rows can go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leaving {
    /// Rows that can go at once, one step after the other.
    pub steps: Vec<Vec<usize>>,
    /// Links, by number, whose columns must be emptied before the first step.
    pub emptied: BTreeSet<usize>,
    /// From this step on rows go although others that are still there refer to them, which the database checks at the end.
    pub put_off_from: Option<usize>,
}

/// The order in which `count` rows can go, those that refer first. A row that refers to itself is no circle. A circle is
/// broken by checks that are put off, or else by emptying columns; rows of one that cannot be broken go together.
#[must_use]
pub fn leaving(count: usize, links: &[Link]) -> Leaving {
    let mut leaving = Leaving::default();
    let mut binds: Vec<bool> = links.iter().map(|link| link.parent != link.child).collect();
    let mut waits_for = vec![0usize; count];
    let mut above: Vec<Vec<usize>> = vec![Vec::new(); count];
    for (number, link) in links.iter().enumerate().filter(|(number, _)| binds[*number]) {
        waits_for[link.parent] += 1;
        above[link.child].push(number);
    }
    let mut left: BTreeSet<usize> = (0..count).collect();
    while !left.is_empty() {
        let mut free: Vec<usize> = left.iter().copied().filter(|row| waits_for[*row] == 0).collect();
        if free.is_empty() {
            if unbind(links, &left, &mut binds, &mut waits_for, &mut leaving) {
                continue;
            }
            free = lowest_circle(links, &left, &binds);
        }
        for row in &free {
            left.remove(row);
            for number in &above[*row] {
                if std::mem::take(&mut binds[*number]) {
                    waits_for[links[*number].parent] -= 1;
                }
            }
        }
        leaving.steps.push(free);
    }
    leaving
}

/// A circle of rows that are left to which nothing refers but itself.
fn lowest_circle(links: &[Link], left: &BTreeSet<usize>, binds: &[bool]) -> Vec<usize> {
    let rows: Vec<usize> = left.iter().copied().collect();
    let place = |row: &usize| rows.binary_search(row).ok();
    let mut children = vec![Vec::new(); rows.len()];
    for link in links.iter().zip(binds).filter(|(_, binds)| **binds).map(|(link, _)| link) {
        if let (Some(parent), Some(child)) = (place(&link.parent), place(&link.child)) {
            children[parent].push(child);
        }
    }
    let lowest = components(&children).into_iter().next().unwrap_or_default();
    lowest.into_iter().map(|at| rows[at]).collect()
}

/// Takes links between rows that are left out of the way; false when there is none that can be.
fn unbind(
    links: &[Link],
    left: &BTreeSet<usize>,
    binds: &mut [bool],
    waits_for: &mut [usize],
    leaving: &mut Leaving,
) -> bool {
    for how in [Untie::PutOff, Untie::Empty] {
        let loosened: Vec<usize> = (0..links.len())
            .filter(|number| binds[*number] && links[*number].untie == how && left.contains(&links[*number].child))
            .collect();
        if loosened.is_empty() {
            continue;
        }
        for number in loosened {
            binds[number] = false;
            waits_for[links[number].parent] -= 1;
            if how == Untie::Empty {
                leaving.emptied.insert(number);
            }
        }
        if how == Untie::PutOff {
            leaving.put_off_from.get_or_insert(leaving.steps.len());
        }
        return true;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn link(parent: usize, child: usize, untie: Untie) -> Link {
        Link { parent, child, untie }
    }

    #[test]
    fn parts_come_behind_what_they_reach() {
        // 0 -> 1 <-> 2 -> 3, and 4 alone.
        let edges = vec![vec![1], vec![2], vec![1, 3], Vec::new(), Vec::new()];
        assert_eq!(components(&edges), [vec![3], vec![1, 2], vec![0], vec![4]]);
        let long: Vec<Vec<usize>> =
            (0..200_000).map(|node| if node > 0 { vec![node - 1] } else { Vec::new() }).collect();
        assert_eq!(components(&long).len(), 200_000);
    }

    #[test]
    fn a_circle_is_broken_where_it_can_be() {
        // 0 <- 1 <- 2 <- 0: children first is impossible.
        let circle = |untie| leaving(3, &[link(0, 1, Untie::Firm), link(1, 2, Untie::Firm), link(2, 0, untie)]);
        assert_eq!(circle(Untie::Firm), Leaving { steps: vec![vec![0, 1, 2]], ..Leaving::default() });
        let emptied = circle(Untie::Empty);
        assert_eq!((emptied.steps, emptied.emptied), (vec![vec![2], vec![1], vec![0]], BTreeSet::from([2])));
        let put_off = circle(Untie::PutOff);
        assert_eq!((put_off.steps, put_off.put_off_from), (vec![vec![2], vec![1], vec![0]], Some(0)));
        assert_eq!(leaving(1, &[link(0, 0, Untie::Firm)]).steps, [[0]]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_row_goes_once_and_never_before_what_refers_to_it(
            pairs in proptest::collection::vec((0usize..9, 0usize..9, 0u8..3), 0..20),
        ) {
            let kinds = [Untie::Firm, Untie::PutOff, Untie::Empty];
            let links: Vec<Link> = pairs.iter().map(|(parent, child, kind)| link(*parent, *child, kinds[usize::from(*kind)])).collect();
            let leaving = leaving(9, &links);
            let mut all: Vec<usize> = leaving.steps.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..9).collect::<Vec<_>>());
            let step = |row| leaving.steps.iter().position(|rows| rows.contains(&row)).unwrap();
            let mut edges = vec![Vec::new(); 9];
            for link in &links {
                edges[link.parent].push(link.child);
            }
            let parts = components(&edges);
            let part = |row: usize| parts.iter().position(|rows| rows.contains(&row)).unwrap();
            for (number, link) in links.iter().enumerate() {
                prop_assert!(part(link.child) <= part(link.parent));
                let is_tied = part(link.child) == part(link.parent);
                if link.untie == Untie::Firm && link.child != link.parent {
                    // Only rows of a circle that nothing breaks go together.
                    let is_before = step(link.child) < step(link.parent);
                    prop_assert!(is_before || is_tied && step(link.child) == step(link.parent), "{}", number);
                }
            }
        }
    }
}

//! Nodes, relationships, unique keys and a journal: the little of a property graph that the statements need.
//!
//! Every change is written to the journal, so that a statement that fails half-way is undone whole, as a transaction
//! is. Values are those that a Neo4j property can hold; null means "not there".

mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use serde_json::Value;

use super::answer::ServerError;
use values::{check_storable, map_of};

/// The properties that can be looked up by value, by label.
const INDEXED: [(&str, &str); 6] = [
    ("KalendsRemoval", "uid"),
    ("User", "uid"),
    ("Calendar", "uid"),
    ("Event", "uid"),
    ("Event", "series_uid"),
    ("Contact", "uid"),
];

/// A node's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(u64);

/// A relationship's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RelationshipId(u64);

/// Properties by name; never null.
pub type Properties = BTreeMap<String, Value>;

/// A node: one label and its properties.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its label.
    pub label: String,
    /// Its properties.
    pub properties: Properties,
}

/// A relationship: its type, both ends and its properties.
#[derive(Clone, Debug, PartialEq)]
pub struct Relationship {
    /// Its type.
    pub kind: String,
    /// Where it begins.
    pub from: NodeId,
    /// Where it points.
    pub to: NodeId,
    /// Its properties.
    pub properties: Properties,
}

/// What a transaction changed, in the server's own terms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Nodes that were created.
    pub nodes_created: u64,
    /// Nodes that were deleted.
    pub nodes_deleted: u64,
    /// Properties that were set, changed or not.
    pub properties_set: u64,
    /// Relationships that were created.
    pub relationships_created: u64,
    /// Relationships that were deleted.
    pub relationships_deleted: u64,
    /// Constraints that were added.
    pub constraints_added: u64,
    /// Indexes that were added.
    pub indexes_added: u64,
}

enum Undo {
    ForgetNode(NodeId),
    RestoreNode(NodeId, Node),
    ForgetRelationship(RelationshipId),
    RestoreRelationship(RelationshipId, Relationship),
    NodeProperty(NodeId, String, Value),
    RelationshipProperty(RelationshipId, String, Value),
}

/// One database's graph.
#[derive(Default)]
pub struct PropertyGraph {
    nodes: BTreeMap<NodeId, Node>,
    relationships: BTreeMap<RelationshipId, Relationship>,
    touching: BTreeMap<NodeId, BTreeSet<RelationshipId>>,
    index: BTreeMap<(&'static str, &'static str), BTreeMap<String, BTreeSet<NodeId>>>,
    unique: BTreeSet<(String, String)>,
    schema: BTreeSet<String>,
    ids_given: u64,
    journal: Vec<Undo>,
    counters: Counters,
}

impl PropertyGraph {
    /// All nodes, in the order of their making.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    /// All relationships, in the order of their making.
    pub fn relationships(&self) -> impl Iterator<Item = &Relationship> {
        self.relationships.values()
    }

    /// The node, if it is there.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    /// A node's property; null if it has none of that name.
    #[must_use]
    pub fn get(&self, id: NodeId, name: &str) -> &Value {
        self.nodes
            .get(&id)
            .and_then(|node| node.properties.get(name))
            .unwrap_or(&Value::Null)
    }

    /// A relationship's property; null if it has none of that name.
    #[must_use]
    pub fn get_of_relationship(&self, id: RelationshipId, name: &str) -> &Value {
        self.relationships
            .get(&id)
            .and_then(|relationship| relationship.properties.get(name))
            .unwrap_or(&Value::Null)
    }

    /// The nodes with `label` whose indexed property `name` is `value`; none for null, as in Cypher.
    #[must_use]
    pub fn find(&self, label: &'static str, name: &'static str, value: &Value) -> Vec<NodeId> {
        value
            .as_str()
            .and_then(|text| self.index.get(&(label, name))?.get(text))
            .map(|ids| ids.iter().copied().collect())
            .unwrap_or_default()
    }

    /// The nodes with `label` whose `uid` starts with `prefix` and is greater than `after`, in order of `uid`.
    pub fn with_uid_prefix<'a>(
        &'a self,
        label: &'static str,
        prefix: &'a str,
        after: &str,
    ) -> impl Iterator<Item = NodeId> + 'a {
        let from = if after >= prefix {
            Bound::Excluded(after.to_owned())
        } else {
            Bound::Included(prefix.to_owned())
        };
        self.index
            .get(&(label, "uid"))
            .into_iter()
            .flat_map(move |values| values.range::<String, _>((from.clone(), Bound::Unbounded)))
            .take_while(move |(uid, _)| uid.starts_with(prefix))
            .flat_map(|(_, ids)| ids.iter().copied())
    }

    /// The relationships of `kinds` that begin at `node`, with the nodes they point to.
    #[must_use]
    pub fn outgoing(&self, node: NodeId, kinds: &[&str]) -> Vec<(RelationshipId, NodeId)> {
        self.touching_of(node)
            .filter(|(_, relationship)| {
                relationship.from == node && kinds.contains(&relationship.kind.as_str())
            })
            .map(|(id, relationship)| (id, relationship.to))
            .collect()
    }

    /// The nodes from which relationships of `kind` point to `node`.
    #[must_use]
    pub fn incoming(&self, node: NodeId, kind: &str) -> Vec<NodeId> {
        self.touching_of(node)
            .filter(|(_, relationship)| relationship.to == node && relationship.kind == kind)
            .map(|(_, relationship)| relationship.from)
            .collect()
    }

    /// Whether any relationship touches `node`.
    #[must_use]
    pub fn is_connected(&self, node: NodeId) -> bool {
        self.touching
            .get(&node)
            .is_some_and(|touching| !touching.is_empty())
    }

    fn touching_of(&self, node: NodeId) -> impl Iterator<Item = (RelationshipId, &Relationship)> {
        self.touching
            .get(&node)
            .into_iter()
            .flatten()
            .filter_map(|id| Some((*id, self.relationships.get(id)?)))
    }

    /// Makes a node.
    ///
    /// # Errors
    /// If a property breaks a constraint or cannot be stored.
    pub fn create_node(
        &mut self,
        label: &str,
        properties: Properties,
    ) -> Result<NodeId, ServerError> {
        self.ids_given += 1;
        let id = NodeId(self.ids_given);
        let node = Node {
            label: label.to_owned(),
            properties: Properties::new(),
        };
        self.nodes.insert(id, node);
        self.journal.push(Undo::ForgetNode(id));
        self.counters.nodes_created += 1;
        for (name, value) in properties {
            self.set(id, &name, value)?;
        }
        Ok(id)
    }

    /// Cypher's `MERGE (n:label {uid: uid})`: the node, and whether it was made just now.
    ///
    /// # Errors
    /// For a null key, as the server does.
    pub fn merge_node(
        &mut self,
        label: &'static str,
        uid: &Value,
    ) -> Result<(NodeId, bool), ServerError> {
        if uid.is_null() {
            return Err(ServerError::new(
                "Neo.ClientError.Statement.SemanticError",
                format!("cannot merge a {label}: its key property `uid` is null"),
            ));
        }
        if let Some(found) = self.find(label, "uid", uid).first() {
            return Ok((*found, false));
        }
        let properties = Properties::from([("uid".to_owned(), uid.clone())]);
        Ok((self.create_node(label, properties)?, true))
    }

    /// Sets a property; null removes it.
    ///
    /// # Errors
    /// If the value cannot be stored (a map, say) or another node has the same unique key.
    pub fn set(&mut self, id: NodeId, name: &str, value: Value) -> Result<(), ServerError> {
        check_storable(name, &value)?;
        let label = self.label_of(id);
        if self.unique.contains(&(label.to_owned(), name.to_owned()))
            && let Some(holder) = self
                .indexed(label, name)
                .and_then(|key| self.find(key.0, key.1, &value).into_iter().next())
            && holder != id
        {
            return Err(ServerError::new(
                "Neo.ClientError.Schema.ConstraintValidationFailed",
                format!("another {label} has this `{name}` already"),
            ));
        }
        self.counters.properties_set += 1;
        let old = self.put(id, name, value);
        self.journal
            .push(Undo::NodeProperty(id, name.to_owned(), old));
        Ok(())
    }

    /// Sets many properties: Cypher's `+=`.
    ///
    /// # Errors
    /// As [`PropertyGraph::set`].
    pub fn set_all(&mut self, id: NodeId, properties: &Value) -> Result<(), ServerError> {
        for (name, value) in map_of(properties)? {
            self.set(id, name, value.clone())?;
        }
        Ok(())
    }

    /// Cypher's `MERGE (from)-[:kind]->(to)` for two nodes that are there.
    pub fn merge_relationship(&mut self, from: NodeId, kind: &str, to: NodeId) -> RelationshipId {
        let degree = |node: NodeId| self.touching.get(&node).map_or(0, BTreeSet::len);
        // A calendar has thousands of relationships and its events a handful: look from the smaller side.
        let side = if degree(from) <= degree(to) { from } else { to };
        let found = self.touching_of(side).find(|(_, relationship)| {
            relationship.from == from && relationship.to == to && relationship.kind == kind
        });
        if let Some((id, _)) = found {
            return id;
        }
        self.ids_given += 1;
        let id = RelationshipId(self.ids_given);
        self.attach(
            id,
            Relationship {
                kind: kind.to_owned(),
                from,
                to,
                properties: Properties::new(),
            },
        );
        self.journal.push(Undo::ForgetRelationship(id));
        self.counters.relationships_created += 1;
        id
    }

    /// Sets many properties of a relationship: Cypher's `+=`.
    ///
    /// # Errors
    /// If a value cannot be stored.
    pub fn set_all_of_relationship(
        &mut self,
        id: RelationshipId,
        properties: &Value,
    ) -> Result<(), ServerError> {
        for (name, value) in map_of(properties)? {
            check_storable(name, value)?;
            self.counters.properties_set += 1;
            let old = self.put_of_relationship(id, name, value.clone());
            self.journal
                .push(Undo::RelationshipProperty(id, name.clone(), old));
        }
        Ok(())
    }

    /// Deletes a relationship; nothing happens if it is gone.
    pub fn delete_relationship(&mut self, id: RelationshipId) {
        if let Some(relationship) = self.detach(id) {
            self.journal
                .push(Undo::RestoreRelationship(id, relationship));
            self.counters.relationships_deleted += 1;
        }
    }

    /// Deletes a node with its relationships; nothing happens if it is gone.
    pub fn detach_delete(&mut self, id: NodeId) {
        for relationship in self.touching.get(&id).cloned().unwrap_or_default() {
            self.delete_relationship(relationship);
        }
        if let Some(node) = self.remove_node(id) {
            self.journal.push(Undo::RestoreNode(id, node));
            self.counters.nodes_deleted += 1;
        }
    }

    /// Deletes a node that has no relationships.
    ///
    /// # Errors
    /// If it has some, as the server does.
    pub fn delete(&mut self, id: NodeId) -> Result<(), ServerError> {
        if self.is_connected(id) {
            return Err(ServerError::new(
                "Neo.ClientError.Schema.ConstraintValidationFailed",
                "cannot delete a node that still has relationships",
            ));
        }
        self.detach_delete(id);
        Ok(())
    }

    /// Adds a schema rule by name; with `unique` it is a uniqueness constraint on that label's property.
    ///
    /// # Errors
    /// If two nodes share a value that is to be unique.
    pub fn ensure_schema(
        &mut self,
        name: &str,
        unique: Option<(&str, &str)>,
    ) -> Result<(), ServerError> {
        if self.schema.contains(name) {
            return Ok(());
        }
        if let Some((label, property)) = unique {
            let doubled = self
                .indexed(label, property)
                .and_then(|key| self.index.get(&key))
                .is_some_and(|values| values.values().any(|ids| ids.len() > 1));
            if doubled {
                return Err(ServerError::new(
                    "Neo.DatabaseError.Schema.ConstraintCreationFailed",
                    format!("two nodes {label} share a `{property}`"),
                ));
            }
            self.unique.insert((label.to_owned(), property.to_owned()));
            self.counters.constraints_added += 1;
        } else {
            self.counters.indexes_added += 1;
        }
        self.schema.insert(name.to_owned());
        Ok(())
    }

    /// How many schema rules there are.
    #[must_use]
    pub fn schema_rules(&self) -> usize {
        self.schema.len()
    }

    /// Ends a transaction and keeps what it changed.
    pub fn commit(&mut self) -> Counters {
        self.journal.clear();
        std::mem::take(&mut self.counters)
    }

    /// Ends a transaction and undoes what it changed (but not schema rules, which are statements of their own).
    pub fn roll_back(&mut self) {
        for undo in std::mem::take(&mut self.journal).into_iter().rev() {
            match undo {
                Undo::ForgetNode(id) => {
                    self.remove_node(id);
                }
                Undo::RestoreNode(id, node) => {
                    let properties = node.properties.clone();
                    self.nodes.insert(id, node);
                    for (name, value) in properties {
                        self.put(id, &name, Value::Null);
                        self.put(id, &name, value);
                    }
                }
                Undo::ForgetRelationship(id) => {
                    self.detach(id);
                }
                Undo::RestoreRelationship(id, relationship) => self.attach(id, relationship),
                Undo::NodeProperty(id, name, old) => {
                    self.put(id, &name, old);
                }
                Undo::RelationshipProperty(id, name, old) => {
                    self.put_of_relationship(id, &name, old);
                }
            }
        }
        self.counters = Counters::default();
    }

    fn label_of(&self, id: NodeId) -> &'static str {
        let label = self.nodes.get(&id).map_or("", |node| node.label.as_str());
        INDEXED
            .iter()
            .find(|(known, _)| *known == label)
            .map_or("", |(known, _)| *known)
    }

    fn indexed(&self, label: &str, name: &str) -> Option<(&'static str, &'static str)> {
        INDEXED
            .iter()
            .find(|(known, property)| *known == label && *property == name)
            .copied()
    }

    /// Changes a property and the index; gives the value from before.
    fn put(&mut self, id: NodeId, name: &str, value: Value) -> Value {
        let key = self.indexed(self.label_of(id), name);
        let node = self
            .nodes
            .get_mut(&id)
            .expect("a node is changed only while it is there");
        let new_text = value.as_str().map(str::to_owned);
        let old = if value.is_null() {
            node.properties.remove(name)
        } else {
            node.properties.insert(name.to_owned(), value)
        }
        .unwrap_or(Value::Null);
        if let Some(key) = key {
            let values = self.index.entry(key).or_default();
            if let Some(text) = old.as_str()
                && let Some(ids) = values.get_mut(text)
            {
                ids.remove(&id);
                if ids.is_empty() {
                    values.remove(text);
                }
            }
            if let Some(text) = new_text {
                values.entry(text).or_default().insert(id);
            }
        }
        old
    }

    fn put_of_relationship(&mut self, id: RelationshipId, name: &str, value: Value) -> Value {
        let relationship = self
            .relationships
            .get_mut(&id)
            .expect("a relationship is changed only while it is there");
        if value.is_null() {
            relationship.properties.remove(name)
        } else {
            relationship.properties.insert(name.to_owned(), value)
        }
        .unwrap_or(Value::Null)
    }

    fn remove_node(&mut self, id: NodeId) -> Option<Node> {
        let node = self.nodes.get(&id)?.clone();
        for name in node.properties.keys() {
            self.put(id, name, Value::Null);
        }
        self.touching.remove(&id);
        self.nodes.remove(&id);
        Some(node)
    }

    fn attach(&mut self, id: RelationshipId, relationship: Relationship) {
        for end in [relationship.from, relationship.to] {
            self.touching.entry(end).or_default().insert(id);
        }
        self.relationships.insert(id, relationship);
    }

    fn detach(&mut self, id: RelationshipId) -> Option<Relationship> {
        let relationship = self.relationships.remove(&id)?;
        for end in [relationship.from, relationship.to] {
            if let Some(touching) = self.touching.get_mut(&end) {
                touching.remove(&id);
            }
        }
        Some(relationship)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rolled_back_transaction_leaves_no_trace() {
        let mut graph = PropertyGraph::default();
        let (event, _) = graph.merge_node("Event", &json!("u|c|1")).unwrap();
        let (contact, _) = graph.merge_node("Contact", &json!("u|p")).unwrap();
        let tie = graph.merge_relationship(event, "ATTENDED_BY", contact);
        graph.commit();
        let before = (
            graph.nodes.clone(),
            graph.relationships.clone(),
            graph.index.clone(),
        );

        graph.set(event, "uid", json!("u|c|2")).unwrap();
        graph
            .set_all_of_relationship(tie, &json!({ "optional": true }))
            .unwrap();
        graph.detach_delete(event);
        graph.merge_node("Event", &json!("u|c|1")).unwrap();
        graph.delete(contact).unwrap();
        graph.roll_back();
        assert_eq!(
            before,
            (
                graph.nodes.clone(),
                graph.relationships.clone(),
                graph.index.clone()
            )
        );
        assert_eq!(graph.commit(), Counters::default());
    }

    #[test]
    fn keys_are_unique_once_there_is_a_constraint() {
        let mut graph = PropertyGraph::default();
        let twin = || Properties::from([("uid".to_owned(), json!("same"))]);
        graph.create_node("Event", twin()).unwrap();
        graph.ensure_schema("rule", Some(("Event", "uid"))).unwrap();
        assert!(graph.create_node("Event", twin()).is_err());
        graph.roll_back();
        graph.create_node("Contact", twin()).unwrap();
        graph.create_node("Contact", twin()).unwrap();
        assert!(
            graph
                .ensure_schema("other", Some(("Contact", "uid")))
                .is_err()
        );
    }

    #[test]
    fn maps_and_mixed_lists_are_no_properties() {
        let mut graph = PropertyGraph::default();
        let (event, _) = graph.merge_node("Event", &json!("e")).unwrap();
        for bad in [
            json!({ "a": 1 }),
            json!([{ "a": 1 }]),
            json!([1, "a"]),
            json!([null]),
        ] {
            assert!(graph.set(event, "x", bad).is_err());
        }
        for good in [json!([]), json!(["a", "b"]), json!(1), json!(null)] {
            graph.set(event, "x", good).unwrap();
        }
        assert!(graph.merge_node("Event", &Value::Null).is_err());
    }
}

package engine

// SameTarget reports whether two policies have the same effect and the same principal and resource
// scope: what an update of a policy may not change.
func (p *Policy) SameTarget(other *Policy) bool {
	// Principal and resource scopes are comparable structs; only an action's can hold a list.
	return p.tree.Effect == other.tree.Effect && p.tree.Principal == other.tree.Principal &&
		p.tree.Resource == other.tree.Resource
}

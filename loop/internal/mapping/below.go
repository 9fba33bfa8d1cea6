package mapping

// Below is what a layer is made of: an address range from its first byte on.
type Below struct {
	plan   *Plan
	branch branch
}

// Data returns what a layer transforms or checks.
func (p *Plan) Data(layer int) Below { return Below{p, p.layers[layer].below} }

// Tree returns the device that has the hash tree of a layer of verity.
func (p *Plan) Tree(layer int) Below { return Below{p, p.layers[layer].tree} }

// Origin returns what a snapshot shows where its store has nothing.
func (p *Plan) Origin(snapshot int) Below { return Below{p, p.changes[snapshot].origin} }

// Walk is Plan.Walk for a range below the layer.
func (b Below) Walk(offset, length uint64) Walk {
	return Walk{plan: b.plan, from: b.branch, start: offset, length: length}
}

// LayerWalk is Plan.LayerWalk for a range below the layer.
func (b Below) LayerWalk(level int, offset, length uint64, origins []uint8) LayerWalk {
	return LayerWalk{plan: b.plan, level: level, space: b.branch.space, start: b.branch.offset + offset, length: length, origins: origins}
}

// Levels is Plan.Levels for what is below the layer.
func (b Below) Levels() int { return b.branch.space.levels }

// IsPlain reports whether what is read there once only has to be decrypted: no layer below is
// verity, and none is in the origin of a snapshot.
func (b Below) IsPlain() bool { return !b.branch.space.checked && !b.branch.space.covered }

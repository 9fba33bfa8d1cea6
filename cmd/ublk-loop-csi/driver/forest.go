package driver

import (
	"slices"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
)

// forest is all layers, with who needs them.
type forest struct {
	layers  map[string]*pool.Layer
	needs   map[string]int  // how many volumes, snapshots and other layers need the content of a layer
	written map[string]bool // layers that a volume writes to, or is about to
}

// forest reads the records of the pool. It returns nil if there are no layers, or if a record is
// damaged, because that may need any layer.
func (d *Driver) forest() (*forest, error) {
	d.layers.Lock()
	defer d.layers.Unlock()
	layers, damaged, err := d.pool.Layers.All()
	if err != nil || len(layers) == 0 || len(damaged) > 0 {
		return nil, err
	}
	volumes, damagedVolumes, err := d.pool.Volumes.All()
	if err != nil {
		return nil, err
	}
	snapshots, damagedSnapshots, err := d.pool.Snapshots.All()
	if err != nil || len(damagedVolumes)+len(damagedSnapshots) > 0 {
		return nil, err
	}
	return newForest(layers, volumes, snapshots), nil
}

func newForest(layers []*pool.Layer, volumes []*pool.Volume, snapshots []*pool.Snapshot) *forest {
	f := &forest{layers: map[string]*pool.Layer{}, needs: map[string]int{}, written: map[string]bool{}}
	for _, l := range layers {
		f.layers[l.ID] = l
	}
	for _, l := range layers {
		f.needs[f.content(l.Parent)]++ // a merged layer has a parent as long as a device can have both
	}
	for _, v := range volumes {
		for _, id := range []string{v.Top, v.Next} {
			f.needs[f.content(id)]++
			f.written[id] = true
		}
	}
	for _, s := range snapshots {
		f.needs[f.content(s.Layer)]++
	}
	return f
}

// content returns the layer that has the content of a layer.
func (f *forest) content(id string) string {
	for range f.layers {
		l := f.layers[id]
		if l == nil || !l.IsMerged() {
			break
		}
		id = l.Into
	}
	return id
}

// below returns the layer that has the content of a store's parent. It returns nil if a merged layer
// between them still has files, because devices can have these and not yet the layer.
func (f *forest) below(store *pool.Layer) *pool.Layer {
	l := f.layers[store.Parent]
	for range f.layers {
		if l == nil || !l.IsMerged() {
			return l
		}
		if l.Parent != "" {
			return nil
		}
		l = f.layers[l.Into]
	}
	return nil
}

// merged returns a merged layer that still has files, except some.
func (f *forest) merged(except map[string]bool) *pool.Layer {
	for _, l := range f.layers {
		if l.IsMerged() && l.Parent != "" && !except[l.ID] {
			return l
		}
	}
	return nil
}

// mergeable returns a store to merge with the layer below it, except some, nil if there is none. An image takes in
// the changes of the store. Two stores are copied, so they are only merged in a chain that is long;
// those that take the least space come first.
func (f *forest) mergeable(p *pool.Pool, except map[string]bool) (best *pool.Layer) {
	var least int64
	for _, upper := range f.layers {
		lower := f.below(upper)
		if except[upper.ID] || lower == nil || upper.IsMerged() || f.written[upper.ID] || f.written[lower.ID] || f.needs[lower.ID] != 1 ||
			upper.State != pool.Ready || lower.State != pool.Ready || upper.Size != lower.Size {
			continue
		}
		if !lower.IsStore() {
			return upper
		}
		if f.longest(upper.ID) <= pool.MaxChain/2 {
			continue
		}
		n, _ := p.Layers.Allocated(upper.ID) // without it, the merge fails and is reported
		m, _ := p.Layers.Allocated(lower.ID)
		if best == nil || n+m < least {
			best, least = upper, n+m
		}
	}
	return best
}

// mergesBelow reports whether the store that a volume writes to can be merged with the layer below it
// after it is frozen.
func (f *forest) mergesBelow(top string) bool {
	upper := f.layers[top]
	if upper == nil {
		return false
	}
	lower := f.below(upper)
	return lower != nil && f.needs[lower.ID] == 1
}

// longest returns the length of the longest chain with a layer.
func (f *forest) longest(id string) (longest int) {
	for _, top := range f.layers {
		if chain := f.chain(top.ID); slices.Contains(chain, id) {
			longest = max(longest, len(chain))
		}
	}
	return longest
}

// chain returns the layers from one of them down.
func (f *forest) chain(id string) (chain []string) {
	for range f.layers {
		l := f.layers[f.content(id)]
		if l == nil {
			break
		}
		chain, id = append(chain, l.ID), l.Parent
	}
	return chain
}

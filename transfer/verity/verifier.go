package verity

import (
	"bytes"
	"fmt"
)

// A Verifier checks data blocks one at a time. It reads nothing: it names the
// hash block that it needs next, and the caller supplies it. It remembers
// verified hash blocks, so that most data blocks need none. One goroutine at a
// time may use it.
//
//	p := v.Start(block)
//	for {
//		need, missing := v.Next(&p)
//		if !missing {
//			break
//		}
//		… read need …
//		if !v.AddHash(&p, hashBlock) { … the hash block is wrong … }
//	}
//	if !v.CheckData(&p, data) { … the data block is wrong … }
//
// A Path keeps the digest that it expects next. So other paths may be started
// and advanced meanwhile, and every path ends after at most as many hash blocks as
// the tree has levels, even if the Verifier remembers none.
type Verifier struct {
	tree   *Tree
	root   [maxDigest]byte
	hasher hasher
	cache  cache
}

// NewVerifier returns a verifier that trusts a root hash. It remembers as many
// hash blocks as fit into memory, which it keeps: any number, also 0. The root
// hash must have the length of a digest.
func NewVerifier(t *Tree, root, memory []byte) (*Verifier, error) {
	if len(root) != t.algorithm.size {
		return nil, fmt.Errorf("root hash of %d bytes, %s has %d: %w", len(root), t.algorithm.name, t.algorithm.size, ErrInvalid)
	}
	v := &Verifier{tree: t, hasher: t.newHasher(), cache: newCache(memory, int(t.params.HashBlockSize))}
	copy(v.root[:], root)
	return v, nil
}

// A Path leads from a verified digest to a data block. It is a value without
// references, valid as long as its Verifier.
type Path struct {
	block uint64
	// level is the number of hash blocks that the path still needs.
	level int
	// want is the verified digest of the next hash block, or of the data block if
	// none is needed.
	want [maxDigest]byte
}

// Start returns the path to a data block, from the lowest hash block above it
// that the verifier remembers. The block must be less than the number of data
// blocks.
func (v *Verifier) Start(block uint64) Path {
	if block >= v.tree.params.DataBlocks {
		panic("verity: data block out of range")
	}
	p := Path{block: block}
	for ; p.level < len(v.tree.levels); p.level++ {
		if hash := v.cache.get(v.tree.above(block, p.level).Number); hash != nil {
			copy(p.want[:], v.tree.digestIn(hash, block, p.level))
			return p
		}
	}
	p.want = v.root
	return p
}

// Resume shortens a path by the hash blocks that the verifier has got to know since the path
// was last advanced. A path never becomes longer.
func (v *Verifier) Resume(p *Path) {
	for level := range p.level {
		if hash := v.cache.get(v.tree.above(p.block, level).Number); hash != nil {
			p.level = level
			copy(p.want[:], v.tree.digestIn(hash, p.block, level))
			return
		}
	}
}

// Next returns the hash block that AddHash needs next; missing is false if the
// path has arrived at the data block.
func (v *Verifier) Next(p *Path) (need HashBlock, missing bool) {
	if p.level == 0 {
		return HashBlock{}, false
	}
	return v.tree.above(p.block, p.level-1), true
}

// AddHash checks the hash block that Next has named. If it is right, AddHash
// remembers a copy, advances the path and returns true. Otherwise nothing
// changes, and the caller may try other bytes.
func (v *Verifier) AddHash(p *Path, hash []byte) bool {
	if !v.matches(p, hash) {
		return false
	}
	p.level--
	v.cache.put(v.tree.above(p.block, p.level).Number, hash)
	copy(p.want[:], v.tree.digestIn(hash, p.block, p.level))
	return true
}

// TakeHash advances the path by a hash block that AddHash has refused. So the path
// leads to whatever the wrong block says. The verifier does not remember the block.
func (v *Verifier) TakeHash(p *Path, hash []byte) {
	p.level--
	copy(p.want[:], v.tree.digestIn(hash, p.block, p.level))
}

// Wants reports whether the path has arrived at the data block and expects this digest.
func (v *Verifier) Wants(p *Path, digest []byte) bool {
	return p.level == 0 && bytes.Equal(digest, p.want[:v.tree.algorithm.size])
}

// CheckData reports whether a data block is right. The path must have arrived
// there: Next needs no more hash blocks.
func (v *Verifier) CheckData(p *Path, data []byte) bool {
	return p.level == 0 && v.matches(p, data)
}

// matches reports whether a block has the digest that the path expects.
func (v *Verifier) matches(p *Path, block []byte) bool {
	return bytes.Equal(v.hasher.digest(block), p.want[:v.tree.algorithm.size])
}

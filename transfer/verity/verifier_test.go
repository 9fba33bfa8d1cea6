package verity

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"
)

// newVerifier returns a verifier that remembers a number of hash blocks.
func (m *image) newVerifier(t testing.TB, places int) *Verifier {
	t.Helper()
	v, err := NewVerifier(m.Tree, m.root, make([]byte, places*int(m.params.HashBlockSize)))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Paths that advance in any order all arrive after as many hash blocks as the
// tree has levels at most, even with a cache that forgets everything.
func TestVerifierInterleaved(t *testing.T) {
	m := newImage(t, params("sha512", 512, 512, 8*8*8+1))
	random := rand.New(rand.NewPCG(3, 4))
	for _, places := range []int{0, 1, 2, 9, 1000} {
		v := m.newVerifier(t, places)
		type flight struct {
			Path
			steps int
		}
		flights := make([]flight, 64)
		for i := range flights {
			flights[i].Path = v.Start(random.Uint64N(m.params.DataBlocks))
		}
		for range 5000 {
			f := &flights[random.IntN(len(flights))]
			if need, missing := v.Next(&f.Path); missing {
				f.steps++
				if !v.AddHash(&f.Path, m.hash[need.Offset:][:512]) || f.steps > m.Levels() {
					t.Fatalf("%d places: hash block %+v refused, or one of %d", places, need, f.steps)
				}
				continue
			}
			if !v.CheckData(&f.Path, m.dataBlock(f.block)) || v.CheckData(&f.Path, m.dataBlock((f.block+1)%m.params.DataBlocks)) {
				t.Fatalf("%d places: block %d: wrong answer", places, f.block)
			}
			*f = flight{Path: v.Start(random.Uint64N(m.params.DataBlocks))}
		}
	}
}

// A refused block changes nothing, so that the caller may read it again.
func TestVerifierRetry(t *testing.T) {
	m := newImage(t, params("sha256", 512, 512, 300))
	v := m.newVerifier(t, 4)
	p := v.Start(299)
	if v.CheckData(&p, m.dataBlock(299)) {
		t.Error("data accepted before its hash blocks")
	}
	for {
		need, missing := v.Next(&p)
		if !missing {
			break
		}
		hash := m.hash[need.Offset:][:512]
		if v.AddHash(&p, make([]byte, 512)) || v.AddHash(&p, hash[:511]) || !v.AddHash(&p, hash) {
			t.Fatalf("hash block %+v: wrong answer", need)
		}
	}
	if v.CheckData(&p, make([]byte, 512)) || v.CheckData(&p, nil) || !v.CheckData(&p, m.dataBlock(299)) {
		t.Error("data: wrong answer")
	}
	if q := v.Start(298); q.level != 0 {
		t.Error("the hash block is not remembered")
	}
}

// A wrong hash block is not remembered.
func TestVerifierForgetsWrong(t *testing.T) {
	m := newImage(t, params("sha256", 512, 512, 20))
	v := m.newVerifier(t, 8)
	for range 2 {
		m.hashBlock(1)[0] ^= 1
		if m.readable(v, 3) || !m.readable(v, 19) {
			t.Error("another block is readable")
		}
		m.hashBlock(1)[0] ^= 1
	}
	if !m.readable(v, 3) {
		t.Error("not readable after a repair")
	}
	if m.hashBlock(1)[0] ^= 1; !m.readable(v, 3) {
		t.Error("the verified hash block has been forgotten")
	}
}

// A remembered hash block saves reading it. A cache of the whole tree reads each
// block once, and a small one keeps the blocks in use.
func TestCacheHits(t *testing.T) {
	m := newImage(t, params("sha256", 512, 512, 16*16*4))
	reads := func(v *Verifier, blocks ...uint64) int {
		n := 0
		for _, block := range blocks {
			p := v.Start(block)
			for {
				need, missing := v.Next(&p)
				if !missing {
					break
				}
				n++
				if !v.AddHash(&p, m.hash[need.Offset:][:512]) {
					t.Fatalf("hash block %+v refused", need)
				}
			}
		}
		return n
	}
	var every []uint64
	for block := range m.params.DataBlocks {
		every = append(every, block)
	}
	v := m.newVerifier(t, 80)
	if first, again := reads(v, every...), reads(v, every...); first != int(m.HashBlocks()) || again != 0 {
		t.Errorf("%d, then %d reads of %d hash blocks", first, again, m.HashBlocks())
	}
	v = m.newVerifier(t, 3)
	if n := reads(v, 0, 1, 15, 0, 16, 0, 1, 16); n != 4 {
		t.Errorf("%d reads with 3 places, want 4", n)
	}
	if n := reads(m.newVerifier(t, 0), 0, 0); n != 6 {
		t.Errorf("%d reads without a cache, want 6", n)
	}
}

// The cache returns what was put, or nothing, and drops the least recently used.
func TestCache(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for _, places := range []int{0, 1, 2, 7, 8, 9, 16, 17, 31} {
		c := newCache(make([]byte, places*4+3), 4)
		for range 2000 {
			n := byte(random.Uint32() % 50)
			if got := c.get(uint64(n)); got != nil && !bytes.Equal(got, []byte{n, n, n, n}) {
				t.Fatalf("%d places: block %d is %x", places, n, got)
			}
			c.put(uint64(n), []byte{n, n, n, n})
			if got := c.get(uint64(n)); (got != nil) != (places > 0) {
				t.Fatalf("%d places: block %d is %x after put", places, n, got)
			}
		}
	}
	c := newCache(make([]byte, 3), 1)
	for _, n := range []byte{1, 2, 3, 3, 3} { // two paths can add the same block
		c.put(uint64(n), []byte{n})
	}
	if c.get(1) == nil || c.get(2) == nil || c.get(3) == nil {
		t.Errorf("a block that comes again displaces another: %+v", c.entries)
	}
	c = newCache(make([]byte, 3), 1)
	for _, n := range []byte{1, 2, 3} {
		c.put(uint64(n), []byte{n})
	}
	c.get(1)
	c.put(3, []byte{3})
	c.put(4, []byte{4})
	if c.get(2) != nil || c.get(1) == nil || c.get(3) == nil || c.get(4) == nil {
		t.Errorf("not the oldest is gone: %+v", c.entries)
	}
}

// Nothing is allocated for a block.
func TestVerifierAllocatesNothing(t *testing.T) {
	for _, a := range algorithms {
		m := newImage(t, params(a.name, 512, 512, 300))
		v := m.newVerifier(t, 4)
		block := uint64(0)
		n := testing.AllocsPerRun(1000, func() {
			block = (block + 37) % m.params.DataBlocks
			if !m.readable(v, block) {
				t.Error("not readable")
			}
		})
		if n != 0 {
			t.Errorf("%s: %v allocations for a block", a.name, n)
		}
	}
}

// Goroutines share a tree, each with its own verifier. The race detector watches.
func TestVerifiersShareATree(t *testing.T) {
	m := newImage(t, params("sha256", 512, 512, 300))
	var wg sync.WaitGroup
	for range 4 {
		v := m.newVerifier(t, 4)
		wg.Go(func() {
			for block := range m.params.DataBlocks {
				if !m.readable(v, block) {
					t.Errorf("block %d not readable", block)
				}
			}
		})
	}
	wg.Wait()
}

func TestStartOutOfRange(t *testing.T) {
	m := newImage(t, params("sha256", 512, 512, 20))
	v := m.newVerifier(t, 1)
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	v.Start(20)
}

// A path is resumed at the lowest hash block that the verifier remembers, and never becomes
// longer.
func TestVerifierResume(t *testing.T) {
	m := newImage(t, params("sha512", 512, 512, 8*8*8))
	v := m.newVerifier(t, 1000)
	other, p := v.Start(3), v.Start(4)
	for want := m.Levels() - 1; want >= 0; want-- {
		need, _ := v.Next(&other)
		if !v.AddHash(&other, m.hash[need.Offset:][:512]) {
			t.Fatalf("hash block %+v refused", need)
		}
		if v.Resume(&p); p.level != want {
			t.Errorf("%d hash blocks are left, want %d", p.level, want)
		}
	}
	v.cache = newCache(nil, 512)
	if v.Resume(&p); !v.CheckData(&p, m.dataBlock(4)) {
		t.Error("a path became longer, or leads to another block")
	}
}

// A wrong hash block that is taken leads to what it says, and is not remembered.
func TestVerifierTakeHash(t *testing.T) {
	m := newImage(t, params("sha256", 512, 512, 10))
	v := m.newVerifier(t, 10)
	wrong := bytes.Clone(m.hashBlock(0))
	wrong[0] ^= 1
	p := v.Start(1)
	if v.AddHash(&p, wrong) {
		t.Fatal("a wrong hash block is right")
	}
	if v.TakeHash(&p, wrong); !v.CheckData(&p, m.dataBlock(1)) {
		t.Error("block 1 is wrong by a hash block that has its digest")
	}
	p = v.Start(0)
	if _, missing := v.Next(&p); !missing {
		t.Fatal("a wrong hash block is remembered")
	}
	if v.TakeHash(&p, wrong); v.CheckData(&p, m.dataBlock(0)) {
		t.Error("block 0 is right by a hash block that has another digest")
	}
}

// Wants finds out whether a block should be zero.
func TestVerifierWants(t *testing.T) {
	p := params("sha1", 1024, 512, 3)
	data := make([]byte, 3*1024)
	data[0] = 1
	m := buildImage(t, p, data, 512)
	v := m.newVerifier(t, 10)
	zero := m.ZeroDigest()
	for block := range uint64(3) {
		path := v.Start(block)
		if v.Wants(&path, zero) && m.Levels() > 0 && path.level > 0 {
			t.Error("a path that has not arrived wants a digest")
		}
		if need, missing := v.Next(&path); missing && !v.AddHash(&path, m.hash[need.Offset:][:512]) {
			t.Fatal("hash block refused")
		}
		if got := v.Wants(&path, zero); got != (block > 0) {
			t.Errorf("block %d: wants zeroes %v", block, got)
		}
	}
}

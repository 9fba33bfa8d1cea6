package verity

// maxWays is the number of places that a hash block can have in a cache. A
// lookup compares that many numbers.
const maxWays = 8

// A cache remembers verified hash blocks in memory of fixed size. Each block
// belongs to one set, by its number, and replaces the least recently used block
// of its set.
type cache struct {
	memory  []byte
	size    int // of a hash block
	ways    int // places in a set
	sets    uint64
	entries []entry
	clock   uint64
}

// An entry is a place in the cache.
type entry struct {
	block uint64 // number of the block plus 1; 0 if the place is empty
	used  uint64 // clock of the last use
}

// newCache returns a cache of as many blocks of size bytes as fit into memory.
func newCache(memory []byte, size int) cache {
	places := len(memory) / size
	c := cache{memory: memory, size: size, ways: min(places, maxWays)}
	if c.ways > 0 {
		c.sets = uint64(places / c.ways)
		c.entries = make([]entry, int(c.sets)*c.ways)
	}
	return c
}

// get returns a block, or nil.
func (c *cache) get(block uint64) []byte {
	at, set := c.set(block)
	for i := range set {
		if set[i].block == block+1 {
			c.touch(&set[i])
			return c.place(at + i)
		}
	}
	return nil
}

// put copies a block into the cache.
func (c *cache) put(block uint64, bytes []byte) {
	at, set := c.set(block)
	if len(set) == 0 {
		return
	}
	oldest := 0
	for i := range set {
		if set[i].block == block+1 {
			oldest = i
			break
		}
		if set[i].used < set[oldest].used {
			oldest = i
		}
	}
	set[oldest].block = block + 1
	c.touch(&set[oldest])
	copy(c.place(at+oldest), bytes)
}

// set returns the places for a block, and the index of the first.
func (c *cache) set(block uint64) (int, []entry) {
	if c.sets == 0 {
		return 0, nil
	}
	at := int(block%c.sets) * c.ways
	return at, c.entries[at:][:c.ways]
}

func (c *cache) touch(e *entry) {
	c.clock++
	e.used = c.clock
}

func (c *cache) place(i int) []byte { return c.memory[i*c.size:][:c.size] }

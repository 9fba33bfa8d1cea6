package control

// maxBody is the largest body of a request, in bytes: a path and little more.
const maxBody = 64 << 10

// maxKey is the longest key of a transfer, in bytes.
const maxKey = 512

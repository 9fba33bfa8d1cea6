// Package docs checks statements of the documentation that the source can decide: names of
// tests, paths and links, targets of make, the table of packages, and the examples of the
// README.
package docs

// Package kgo pins the version of franz-go whose own tests are run here: go.sum holds its checksum.
package kgo

import _ "github.com/twmb/franz-go/pkg/kgo"

"""What a discriminator pays for beside its loss, one penalty a file. The loop adds those whose weight is not zero."""

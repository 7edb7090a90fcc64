"""What ties the members of links and memories to a platform's resources, one file a kind."""

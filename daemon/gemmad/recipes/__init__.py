"""What one name is made of: references and wishes become plans of files; nothing is fetched."""

import sys
print("check")
